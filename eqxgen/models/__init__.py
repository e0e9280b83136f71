"""Models, one file a family; each is imported on first use: `from eqxgen.models import GPT`."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eqxgen.models.autoencoder import KLAutoencoder, VQAutoencoder
    from eqxgen.models.convnet import ConvNet
    from eqxgen.models.discriminator import Discriminator
    from eqxgen.models.dit import DiT
    from eqxgen.models.gpt import GPT
    from eqxgen.models.inception import Inception
    from eqxgen.models.lpips import LPIPS
    from eqxgen.models.maskgit import MaskGIT
    from eqxgen.models.pixels import PixelTokenizer
    from eqxgen.models.resnet import ResNet
    from eqxgen.models.rnn import RNN
    from eqxgen.models.vqgan import VQGAN

__all__ = [
    "GPT",
    "LPIPS",
    "RNN",
    "VQGAN",
    "ConvNet",
    "DiT",
    "Discriminator",
    "Inception",
    "KLAutoencoder",
    "MaskGIT",
    "PixelTokenizer",
    "ResNet",
    "VQAutoencoder",
]
_HOMES = {"KLAutoencoder": "autoencoder", "PixelTokenizer": "pixels", "VQAutoencoder": "autoencoder"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, name.lower())}"), name)
