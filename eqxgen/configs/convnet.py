"""Sizes of the small convolutional classifier."""

import dataclasses

from eqxgen.configs._check import at_least_one, dropout, require


@dataclasses.dataclass(frozen=True)
class ConvNetConfig:
    """Sizes of `eqxgen.models.convnet.ConvNet`, whose constructor takes them."""

    width: int = 32
    """Channels of the first level, doubled at each; a multiple of 8."""
    levels: int = 2
    """Number of times that the image is halved."""
    features: int = 64
    """Size of the hidden layer."""
    dropout: float = 0.2
    """Rate before the last projection."""

    def __post_init__(self):
        at_least_one(self, "width", "levels", "features")
        require(self.width % 8 == 0, f"model.width must be a multiple of 8: got {self.width}")
        dropout(self)
