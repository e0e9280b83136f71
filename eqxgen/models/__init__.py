"""Models, one file a family; each is imported on first use: `from eqxgen.models import GPT`."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eqxgen.models.autoencoder import KLAutoencoder, VQAutoencoder
    from eqxgen.models.bert import BERT, BERTClassifier, BERTMaskedLM
    from eqxgen.models.clip import CLIP
    from eqxgen.models.convnet import ConvNet
    from eqxgen.models.denoisers.dit import DiT
    from eqxgen.models.denoisers.edm2 import EDM2UNet
    from eqxgen.models.denoisers.pax_unet import PaxUNet
    from eqxgen.models.denoisers.unet import UNet
    from eqxgen.models.denoisers.unet_guides import UNetClassifier, Upsampler
    from eqxgen.models.denoisers.uvit import UViT
    from eqxgen.models.gan.dcgan import DCGANDiscriminator, DCGANGenerator
    from eqxgen.models.gan.r3gan import R3GANDiscriminator, R3GANGenerator
    from eqxgen.models.gan.stylegan2 import StyleGAN2Generator
    from eqxgen.models.gan.stylegan2_discriminator import StyleGAN2Discriminator
    from eqxgen.models.gpt import GPT
    from eqxgen.models.image_ar import ImageAR
    from eqxgen.models.inception import Inception
    from eqxgen.models.lpips import LPIPS
    from eqxgen.models.mae import MAE
    from eqxgen.models.mage import MAGE
    from eqxgen.models.mage_classifier import MAGEClassifier
    from eqxgen.models.maskgit import MaskGIT
    from eqxgen.models.muse import Muse
    from eqxgen.models.parti import Parti
    from eqxgen.models.resnet import ResNet
    from eqxgen.models.rnn import RNN
    from eqxgen.models.segmentation import SegmentationUNet
    from eqxgen.models.t5 import T5, T5Encoder
    from eqxgen.models.tokenizers.discriminator import Discriminator
    from eqxgen.models.tokenizers.patch_discriminator import PatchDiscriminator
    from eqxgen.models.tokenizers.pixels import PixelTokenizer
    from eqxgen.models.tokenizers.taming import Taming
    from eqxgen.models.tokenizers.titok import TiTok
    from eqxgen.models.tokenizers.vit_vqgan import ViTVQGAN
    from eqxgen.models.vae import VAE
    from eqxgen.models.var import VAR
    from eqxgen.models.vit import ViT
    from eqxgen.models.vqgan import VQGAN
    from eqxgen.models.wavegru import WaveGRU

__all__ = [
    "BERT",
    "CLIP",
    "GPT",
    "LPIPS",
    "MAE",
    "MAGE",
    "RNN",
    "T5",
    "VAE",
    "VAR",
    "VQGAN",
    "BERTClassifier",
    "BERTMaskedLM",
    "ConvNet",
    "DCGANDiscriminator",
    "DCGANGenerator",
    "DiT",
    "Discriminator",
    "EDM2UNet",
    "ImageAR",
    "Inception",
    "KLAutoencoder",
    "MAGEClassifier",
    "MaskGIT",
    "Muse",
    "Parti",
    "PatchDiscriminator",
    "PaxUNet",
    "PixelTokenizer",
    "R3GANDiscriminator",
    "R3GANGenerator",
    "ResNet",
    "SegmentationUNet",
    "StyleGAN2Discriminator",
    "StyleGAN2Generator",
    "T5Encoder",
    "Taming",
    "TiTok",
    "UNet",
    "UNetClassifier",
    "UViT",
    "Upsampler",
    "VQAutoencoder",
    "ViT",
    "ViTVQGAN",
    "WaveGRU",
]
_HOMES = {
    "BERTClassifier": "bert",
    "BERTMaskedLM": "bert",
    "DCGANDiscriminator": "gan.dcgan",
    "DCGANGenerator": "gan.dcgan",
    "DiT": "denoisers.dit",
    "Discriminator": "tokenizers.discriminator",
    "EDM2UNet": "denoisers.edm2",
    "ImageAR": "image_ar",
    "KLAutoencoder": "autoencoder",
    "MAGEClassifier": "mage_classifier",
    "PatchDiscriminator": "tokenizers.patch_discriminator",
    "PaxUNet": "denoisers.pax_unet",
    "PixelTokenizer": "tokenizers.pixels",
    "R3GANDiscriminator": "gan.r3gan",
    "R3GANGenerator": "gan.r3gan",
    "SegmentationUNet": "segmentation",
    "StyleGAN2Discriminator": "gan.stylegan2_discriminator",
    "StyleGAN2Generator": "gan.stylegan2",
    "T5Encoder": "t5",
    "UNet": "denoisers.unet",
    "UNetClassifier": "denoisers.unet_guides",
    "UViT": "denoisers.uvit",
    "Upsampler": "denoisers.unet_guides",
    "VQAutoencoder": "autoencoder",
    "Taming": "tokenizers.taming",
    "TiTok": "tokenizers.titok",
    "ViTVQGAN": "tokenizers.vit_vqgan",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, name.lower())}"), name)
