"""Sizes of the models and options of the samplers: plain data, its checks, and the published presets.

One file a family. Neither jax nor numpy is imported, so that a command line reads and checks them at once. An error
names the field as the flag of a command: `model.dim`, `decode.steps`.
"""

from eqxgen.configs.autoencoder import AutoencoderConfig, TamingConfig
from eqxgen.configs.bert import BERTConfig
from eqxgen.configs.clip import CLIPConfig, TextTowerConfig
from eqxgen.configs.decoding import (
    ORDERS,
    SCHEDULES,
    WEIGHTINGS,
    ImageSampling,
    MaskedDecoding,
    Sampling,
    parse_schedule,
)
from eqxgen.configs.denoisers.dit import DiTConfig
from eqxgen.configs.denoisers.edm2 import EDM2Config
from eqxgen.configs.denoisers.pax_unet import PaxUNetConfig
from eqxgen.configs.denoisers.unet import UNetConfig
from eqxgen.configs.denoisers.uvit import UViTConfig
from eqxgen.configs.diffusion import DenoiserConfig, DiffusionLoss, DiffusionSampling, FewStepLoss, ScheduleConfig
from eqxgen.configs.gan import DCGANConfig, R3GANConfig, StyleGAN2Config
from eqxgen.configs.gpt import GPT2_SIZES, LLAMA2_SIZES, LLAMA3_1_SIZES, GPTConfig
from eqxgen.configs.image_ar import LLAMAGEN_SIZES, VAR_SIZES, ImageARConfig, VARConfig
from eqxgen.configs.mage import MAGEConfig, MaskRatio
from eqxgen.configs.maskgit import MaskGITConfig
from eqxgen.configs.muse import MUSE_SIZES, MuseConfig
from eqxgen.configs.parti import PARTI_SIZES, PartiConfig
from eqxgen.configs.quantizer import QUANTIZERS, VAR_SCALES, QuantizerConfig
from eqxgen.configs.resnet import ConvNetConfig, ResNetConfig
from eqxgen.configs.rnn import RNNConfig
from eqxgen.configs.segmentation import SegmentationConfig
from eqxgen.configs.t5 import T5_SIZES, T5_SIZES_V1_1, T5Config
from eqxgen.configs.titok import TiTokConfig
from eqxgen.configs.vae import VAEConfig
from eqxgen.configs.vit import MAEConfig, ViTConfig
from eqxgen.configs.vit_vqgan import ViTVQGANConfig
from eqxgen.configs.vqgan import VQGANConfig
from eqxgen.configs.wavegru import MelConfig, WaveGRUConfig

__all__ = [
    "GPT2_SIZES",
    "LLAMA2_SIZES",
    "LLAMA3_1_SIZES",
    "LLAMAGEN_SIZES",
    "MUSE_SIZES",
    "ORDERS",
    "PARTI_SIZES",
    "QUANTIZERS",
    "SCHEDULES",
    "T5_SIZES",
    "T5_SIZES_V1_1",
    "VAR_SCALES",
    "VAR_SIZES",
    "WEIGHTINGS",
    "AutoencoderConfig",
    "BERTConfig",
    "CLIPConfig",
    "ConvNetConfig",
    "DCGANConfig",
    "DenoiserConfig",
    "DiTConfig",
    "DiffusionLoss",
    "DiffusionSampling",
    "EDM2Config",
    "FewStepLoss",
    "GPTConfig",
    "ImageARConfig",
    "ImageSampling",
    "MAEConfig",
    "MAGEConfig",
    "MaskGITConfig",
    "MaskRatio",
    "MaskedDecoding",
    "MelConfig",
    "MuseConfig",
    "PartiConfig",
    "PaxUNetConfig",
    "QuantizerConfig",
    "R3GANConfig",
    "RNNConfig",
    "ResNetConfig",
    "Sampling",
    "ScheduleConfig",
    "SegmentationConfig",
    "StyleGAN2Config",
    "T5Config",
    "TamingConfig",
    "TextTowerConfig",
    "TiTokConfig",
    "UNetConfig",
    "UViTConfig",
    "VAEConfig",
    "VARConfig",
    "VQGANConfig",
    "ViTConfig",
    "ViTVQGANConfig",
    "WaveGRUConfig",
    "parse_schedule",
]
