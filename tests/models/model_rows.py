"""Small models of every kind and their inputs, for the tests on meshes and of `jax.export`."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from eqxgen.configs import (
    AutoencoderConfig,
    BERTConfig,
    CLIPConfig,
    DCGANConfig,
    DiTConfig,
    EDM2Config,
    GPTConfig,
    ImageARConfig,
    MAEConfig,
    MAGEConfig,
    MaskGITConfig,
    MuseConfig,
    PartiConfig,
    PaxUNetConfig,
    R3GANConfig,
    ResNetConfig,
    RNNConfig,
    SegmentationConfig,
    StyleGAN2Config,
    T5Config,
    TamingConfig,
    TextTowerConfig,
    TiTokConfig,
    UNetConfig,
    UViTConfig,
    VAEConfig,
    VARConfig,
    ViTConfig,
    ViTVQGANConfig,
    VQGANConfig,
    WaveGRUConfig,
)
from eqxgen.models.autoencoder import KLAutoencoder, VQAutoencoder
from eqxgen.models.bert import BERTMaskedLM
from eqxgen.models.clip import CLIP
from eqxgen.models.convnet import ConvNet
from eqxgen.models.denoisers.dit import DiT
from eqxgen.models.denoisers.edm2 import EDM2UNet
from eqxgen.models.denoisers.pax_unet import PaxUNet
from eqxgen.models.denoisers.unet import UNet
from eqxgen.models.denoisers.unet_guides import UNetClassifier
from eqxgen.models.denoisers.uvit import UViT
from eqxgen.models.gan.dcgan import DCGANGenerator
from eqxgen.models.gan.r3gan import R3GANDiscriminator, R3GANGenerator
from eqxgen.models.gan.stylegan2 import StyleGAN2Generator
from eqxgen.models.gan.stylegan2_discriminator import StyleGAN2Discriminator
from eqxgen.models.gpt import GPT
from eqxgen.models.image_ar import ImageAR
from eqxgen.models.mae import MAE
from eqxgen.models.mage import MAGE
from eqxgen.models.mage_classifier import MAGEClassifier
from eqxgen.models.maskgit import MaskGIT
from eqxgen.models.muse import Muse
from eqxgen.models.parti import Parti
from eqxgen.models.resnet import ResNet
from eqxgen.models.rnn import RNN
from eqxgen.models.segmentation import SegmentationUNet
from eqxgen.models.t5 import T5
from eqxgen.models.tokenizers.discriminator import Discriminator
from eqxgen.models.tokenizers.patch_discriminator import PatchDiscriminator
from eqxgen.models.tokenizers.taming import Taming
from eqxgen.models.tokenizers.titok import TiTok
from eqxgen.models.tokenizers.vit_vqgan import ViTVQGAN
from eqxgen.models.vae import VAE
from eqxgen.models.var import VAR
from eqxgen.models.vit import ViT
from eqxgen.models.vqgan import VQGAN
from eqxgen.models.wavegru import WaveGRU
from eqxgen.nn import MultiScaleVQ, VectorQuantizer
from tests.arrays import Seed, drawn, integers


class Row(NamedTuple):
    """A model: how it is made from a key, inputs of one example from a seed, and whether a call in training draws.

    `stateful` as in the table of layers; `whole`: its results depend on the whole batch.
    """

    make: Callable[[Any], Any]
    inputs: Callable[[int], tuple[jax.Array, ...]]
    draws: bool = False
    stateful: bool = False
    whole: bool = False


class Judged(eqx.Module):
    """A discriminator of patches without a state."""

    model: PatchDiscriminator

    def __call__(self, image: jax.Array, *, key: Any = None) -> Any:
        return self.model(image, ())[0]


class Keyless(eqx.Module):
    """A model that takes no key, called with one."""

    model: eqx.Module

    def __call__(self, image: jax.Array, *, key: Any = None) -> Any:
        return self.model(image)


def image(seed: Seed, side: int = 12) -> tuple[jax.Array]:
    return (jnp.tanh(drawn((side, side, 3), seed)),)


def text(seed: Seed, tokens: int = 9, bound: int = 7) -> tuple[jax.Array]:
    return (integers((tokens,), bound, seed),)


def texts(seed: Seed) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(seed)
    return *text(rng), *text(rng)


def labelled(seed: Seed) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(seed)
    return integers((9,), 8, rng), integers((), 4, rng)


def scaled(seed: Seed) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(seed)
    return integers((14,), 8, rng), integers((), 4, rng)


def captioned(seed: Seed) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(seed)
    return integers((9,), 7, rng), integers((5,), 6, rng)


def sound(seed: Seed) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(seed)
    return drawn((5, 5), rng), integers((12,), 256, rng)


def noised(seed: Seed) -> tuple[jax.Array, ...]:
    rng = np.random.default_rng(seed)
    time = jnp.asarray(4.0 * rng.integers(250), jnp.float32)  # the same in bfloat16
    return drawn((6, 4, 3), rng), time, integers((), 6, rng)


def gpt(**changes: Any) -> Callable[[Any], GPT]:
    sizes = {"dim": 16, "depth": 2, "heads": 4, "hidden_dim": 24, "context": 512} | changes
    return lambda key: GPT(7, GPTConfig(**sizes), key=key)


def maskgit(**changes: Any) -> Callable[[Any], MaskGIT]:
    sizes = {"dim": 16, "depth": 2, "heads": 2, "hidden_dim": 24, "dropout": 0.1} | changes
    return lambda key: MaskGIT(9, 7, 3, MaskGITConfig(**sizes), key=key)


def mage(**changes: Any) -> Callable[[Any], MAGE]:
    return lambda key: MAGE(9, 7, 3, dataclasses.replace(SMALL_MAGE, **changes), key=key)


def mage_classifier(key: Any) -> MAGEClassifier:
    tokenizer = VQGAN(12, 12, 3, SMALL_VQGAN, key=key)
    return MAGEClassifier(tokenizer, MAGE(tokenizer.tokens, 7, 3, SMALL_MAGE, key=key), 5, key=key)


def pair(seed: Seed) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(seed)
    return *image(rng), *text(rng)


class Masked(eqx.Module):
    """A model called with a mask or noise beside the image."""

    model: eqx.Module
    name: str = eqx.field(static=True)

    def __call__(self, image: jax.Array, numbers: jax.Array, *, key: Any = None, inference: bool | None = None) -> Any:
        other = numbers > 0.5 if self.name == "mask" else numbers
        found = self.model(image, **{self.name: other}, key=key, inference=inference)
        return found[0] if isinstance(found, tuple) else found


def latent(seed: Seed) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(seed)
    return drawn((6,), rng), integers((), 3, rng)


def judged(seed: Seed) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(seed)
    return *image(rng, 8), integers((), 3, rng)


class Noised(eqx.Module):
    """A generator with noise of a key of its own."""

    model: eqx.Module

    def __call__(self, latent: jax.Array, label: jax.Array, *, key: Any = None) -> Any:
        return self.model(latent, label, key=jr.key(7))


class Alone(eqx.Module):
    """A discriminator of batches, of one image."""

    model: eqx.Module

    def __call__(self, image: jax.Array, label: jax.Array, *, key: Any = None) -> Any:
        return self.model(image[None], label[None])[0]


def hidden(seed: Seed) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(seed)
    return *image(rng), jnp.asarray(rng.uniform(size=9), jnp.float32)


LLAMA = {"kv_heads": 2, "bias": False, "tied": False, "positions": "rotary", "norm": "rms", "mlp": "swiglu"}
SMALL_MAGE = MAGEConfig(16, 2, 2, 24, decoder_dim=12, decoder_depth=1, decoder_heads=2, decoder_hidden_dim=20)
SMALL_VQGAN = VQGANConfig(width=8, multipliers=(1, 2), blocks=1, latent_dim=5, codes=7)
SMALL_TAMING = TamingConfig(widths=(8, 8), blocks=1, latent_dim=6, attention=(1,), groups=4, codes=7, code_dim=5)
SMALL_VIT_VQGAN = ViTVQGANConfig(patch=4, dim=16, depth=2, heads=2, codes=7, code_dim=4)
SMALL_TITOK = TiTokConfig(patch=4, latents=3, dim=16, depth=2, heads=2, codes=7, code_dim=4)
SMALL_VAE = VAEConfig(hidden=(6,), latent_dim=3)
CONVOLVED_VAE = VAEConfig(hidden=(5,), latent_dim=3, channels=(4, 6), activation="leaky_relu")
SMALL_DIT = DiTConfig(dim=16, depth=2, heads=2, hidden_dim=24)
MODERN_DIT = dataclasses.replace(SMALL_DIT, learn_variance=False, gated=True, rms=True, rope=True, qk_norm=True)
SMALL_UVIT = UViTConfig(dim=16, depth=3, heads=2, hidden_dim=24)
SMALL_EDM2 = EDM2Config(width=8, multipliers=(1, 2), blocks=1, attention=(1,), head_dim=8)
SMALL_UNET = UNetConfig(width=8, multipliers=(1, 2), blocks=1, groups=4, linear_attention=True)
SMALL_PAX = PaxUNetConfig(width=8, multipliers=(1, 2), heads=2, head_dim=3, groups=4)
SONG = dataclasses.replace(
    UNetConfig.ddpmpp(),
    width=8,
    multipliers=(1, 2),
    blocks=1,
    taps=(1, 3, 3, 1),
    residual_input=True,
    augment=0,
    dropout=0.0,
)
SMALL_ADM = dataclasses.replace(
    UNetConfig.adm(),
    width=8,
    multipliers=(1, 2),
    blocks=1,
    attention=(1,),
    groups=4,
    head_dim=4,
    dropout=0.0,
    remat=True,
)
SMALL_AUTOENCODER = AutoencoderConfig(widths=(4, 8), blocks=1, latent_dim=3, groups=2, attention=(1,))
SMALL_BERT = BERTConfig(dim=16, depth=2, heads=2, hidden_dim=24)
SMALL_T5 = T5Config(dim=16, depth=2, heads=2, head_dim=6, hidden_dim=24, buckets=8, max_distance=20)
SMALL_PARTI = PartiConfig(16, 2, heads=2, head_dim=6, hidden_dim=24, context=9, buckets=8, max_distance=20)
SMALL_MUSE = MuseConfig(16, 2, heads=2, head_dim=6, hidden_dim=24, context=9, buckets=8, max_distance=20)
SMALL_VIT = ViTConfig(patch=4, dim=16, depth=2, heads=2, hidden_dim=24)
DINO = dataclasses.replace(SMALL_VIT, gated=True, registers=2, mask_token=True, layer_scale=0.5, resize=True)
SMALL_TEXT = TextTowerConfig(dim=12, depth=2, heads=3, hidden_dim=20, context=9)
SMALL_CLIP = CLIPConfig(dataclasses.replace(SMALL_VIT, embedding_norm=True, patch_bias=False), SMALL_TEXT, 10)
SMALL_SIGLIP = CLIPConfig(
    dataclasses.replace(SMALL_VIT, class_token=False, pool="attention"),
    dataclasses.replace(SMALL_TEXT, causal=False, pool="last"),
    16,
    sigmoid=True,
)
SMALL_MAE = MAEConfig(SMALL_VIT, dim=12, depth=1, heads=2)
BOTTLENECK = ResNetConfig(width=8, multipliers=(1, 2), block="bottleneck", depths=(1, 2), stem=6)
SMALL_DCGAN = DCGANConfig(latent_dim=6, width=4, base=2, label_dim=3)
SMALL_R3GAN = R3GANConfig(6, (8, 6), (2, 2), (1, 1), label_dim=3)
SMALL_STYLEGAN2 = StyleGAN2Config(latent_dim=6, mapping=2, width=32, max_width=8)
SMALL_RESNET = ResNetConfig(width=8, multipliers=(1, 2), blocks=1)
SMALL_SEGMENTATION = SegmentationConfig(width=4, multipliers=(1, 2))
SMALL_WAVEGRU = WaveGRUConfig(dim=12, width=8, hidden=10, mixtures=2, dilations=(1,), upsample=(2,))

ROWS = {
    "GPT": Row(gpt(dropout=0.1), text, draws=True),
    "GPT, LLaMA's": Row(gpt(**LLAMA), text),
    "GPT, latent": Row(gpt(positions="rotary", latent=8), text),
    "GPT, experts": Row(gpt(experts=3, capacity_factor=1.0), text),
    "RNN": Row(lambda key: RNN(7, RNNConfig(dim=12, dropout=0.1), key=key), text, draws=True),
    "RNN, GRU": Row(lambda key: RNN(7, RNNConfig(dim=12, cell="gru"), key=key), text),
    "RNN, Mamba-2": Row(lambda key: RNN(7, RNNConfig(dim=12, cell="mamba2", state_dim=4, head_dim=8), key=key), text),
    "WaveGRU": Row(lambda key: WaveGRU(5, 4, SMALL_WAVEGRU, key=key), sound),
    "WaveGRU, dual": Row(lambda key: WaveGRU(5, 4, dataclasses.replace(SMALL_WAVEGRU, head="dual"), key=key), sound),
    "WaveGRU, logistics": Row(
        lambda key: WaveGRU(5, 4, dataclasses.replace(SMALL_WAVEGRU, head="logistics"), key=key), sound
    ),
    "MaskGIT": Row(maskgit(placement="pre"), labelled, draws=True),
    "MaskGIT, rematerialised": Row(maskgit(placement="post", remat=True), labelled, draws=True),
    "MaskGIT, published": Row(
        lambda key: MaskGIT(9, 7, 4, MaskGITConfig(16, 2, 2, 24, null=False), key=key), labelled, draws=True
    ),
    "ImageAR": Row(
        lambda key: ImageAR((3, 3), 8, 3, ImageARConfig(16, 2, 2, 24, targets=True), key=key), labelled, draws=True
    ),
    "VAR": Row(
        lambda key: VAR((1, 2, 3), 8, 4, 3, VARConfig(16, 2, 2, 24, dropout=0.1), key=key).reading(
            MultiScaleVQ(VectorQuantizer(8, 4, key=key), (1, 2, 3), phis=1, key=key)
        ),
        scaled,
        draws=True,
    ),
    "MAGE": Row(mage(head_gradient=True), labelled, draws=True),
    "MAGEClassifier": Row(mage_classifier, image, stateful=True, whole=True),
    "Parti": Row(lambda key: Parti((3, 3), 7, 5, SMALL_PARTI, key=key), captioned, draws=True),
    "Muse": Row(lambda key: Muse((3, 3), 7, 5, SMALL_MUSE, key=key), captioned, draws=True),
    "BERT": Row(lambda key: BERTMaskedLM(7, SMALL_BERT, key=key), text, draws=True),
    "T5": Row(lambda key: T5(7, SMALL_T5, key=key), texts, draws=True),
    "T5, 1.1": Row(
        lambda key: T5(7, dataclasses.replace(SMALL_T5, gated=True, activation="gelu_tanh", tied=False), key=key),
        texts,
        draws=True,
    ),
    "DiT": Row(lambda key: DiT(6, 4, 3, 5, SMALL_DIT, key=key), noised),
    "DiT, modern": Row(lambda key: DiT(6, 4, 3, 5, MODERN_DIT, key=key), noised),
    "UViT": Row(lambda key: UViT(6, 4, 3, 5, SMALL_UVIT, key=key), noised),
    "UNetClassifier": Row(lambda key: UNetClassifier(6, 4, 3, 5, SMALL_ADM, key=key), lambda seed: noised(seed)[:2]),
    "EDM2UNet": Row(lambda key: EDM2UNet(3, 5, SMALL_EDM2, uncertainty=False, key=key), noised),
    "PaxUNet": Row(lambda key: PaxUNet(3, 5, SMALL_PAX, key=key), noised),
    "UNet": Row(lambda key: UNet(3, 5, SMALL_UNET, key=key), noised, draws=True),
    "UNet, NCSN++": Row(lambda key: UNet(3, 5, SONG, key=key), noised),
    "UNet, ADM": Row(lambda key: UNet(3, 5, SMALL_ADM, key=key), noised),
    "VQGAN": Row(lambda key: Keyless(VQGAN(12, 12, 3, SMALL_VQGAN, key=key)), image),
    "VQGAN, published": Row(
        lambda key: Keyless(VQGAN(12, 12, 3, dataclasses.replace(SMALL_VQGAN, form="published"), key=key)), image
    ),
    "Taming": Row(lambda key: Taming(12, 12, 3, SMALL_TAMING, key=key), image),
    "ViTVQGAN": Row(lambda key: ViTVQGAN(12, 12, 3, SMALL_VIT_VQGAN, key=key), image),
    "TiTok": Row(lambda key: TiTok(12, 12, 3, SMALL_TITOK, key=key), image),
    "PatchDiscriminator": Row(lambda key: Judged(PatchDiscriminator(3, width=8, layers=1, norm="act", key=key)), image),
    "KLAutoencoder": Row(lambda key: KLAutoencoder(3, SMALL_AUTOENCODER, key=key), image),
    "VAE": Row(lambda key: VAE(12, 12, 3, SMALL_VAE, key=key), image),
    "VAE, convolutional": Row(lambda key: VAE(12, 12, 3, CONVOLVED_VAE, key=key), image),
    "VQAutoencoder": Row(lambda key: VQAutoencoder(3, 7, SMALL_AUTOENCODER, key=key), image),
    "Discriminator": Row(lambda key: Keyless(Discriminator(12, 3, width=8, max_width=16, key=key)), image),
    "ConvNet": Row(lambda key: ConvNet(3, 4, width=8, levels=2, features=6, key=key), image, draws=True),
    "ResNet": Row(lambda key: ResNet(3, 4, SMALL_RESNET, key=key), image, stateful=True),
    "SegmentationUNet": Row(lambda key: SegmentationUNet(3, 4, SMALL_SEGMENTATION, key=key), image, stateful=True),
    "ResNet, bottleneck": Row(lambda key: ResNet(3, 4, BOTTLENECK, key=key), image, stateful=True),
    "ViT": Row(
        lambda key: ViT(12, 12, 3, 4, dataclasses.replace(SMALL_VIT, dropout=0.1, drop_path=0.1), key=key),
        image,
        draws=True,
    ),
    "ViT, DINOv2's": Row(lambda key: Masked(ViT(12, 12, 3, None, DINO, key=key), "mask"), hidden),
    "CLIP": Row(lambda key: CLIP(12, 12, 3, 7, SMALL_CLIP, key=key), pair),
    "CLIP, SigLIP's": Row(lambda key: CLIP(12, 12, 3, 7, SMALL_SIGLIP, key=key), pair),
    "MAE": Row(lambda key: Masked(MAE(12, 12, 3, SMALL_MAE, key=key), "noise"), hidden),
    "DCGANGenerator": Row(lambda key: DCGANGenerator(8, 3, 3, SMALL_DCGAN, key=key), latent, stateful=True),
    "R3GANGenerator": Row(lambda key: R3GANGenerator(8, 3, 3, SMALL_R3GAN, key=key), latent),
    "R3GANDiscriminator": Row(lambda key: R3GANDiscriminator(8, 3, 3, SMALL_R3GAN, key=key), judged),
    "StyleGAN2Generator": Row(lambda key: Noised(StyleGAN2Generator(8, 3, 3, SMALL_STYLEGAN2, key=key)), latent),
    "StyleGAN2Discriminator": Row(lambda key: Alone(StyleGAN2Discriminator(8, 3, 3, SMALL_STYLEGAN2, key=key)), judged),
    "ResNet, training": Row(
        lambda key: ResNet(3, 4, SMALL_RESNET, key=key), image, draws=True, stateful=True, whole=True
    ),
}
