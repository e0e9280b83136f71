"""Flags of autoencoders whose reconstructions are judged. Imports nothing heavy."""

import dataclasses
from collections.abc import Mapping
from typing import Literal

from ..._errors import require
from ...config.nets import PerceptualNet
from ...config.optim import DiscriminatorConfig
from ...config.options import option
from ..images import ImageConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgedConfig(ImageConfig):
    """A perceptual net, and a discriminator with its optimiser."""

    pixel: float = 1.0
    """Weight of the pixels' loss."""
    perceptual: float = 0.0
    """Weight of the perceptual loss."""
    perceptual_net: str = ""
    """File of published weights of --perceptual-name."""
    perceptual_name: PerceptualNet = "vgg"
    """LPIPS on vgg, alex or squeeze, or the features of inception."""
    adversarial: float = option(0.0, first=True)
    """Weight of the discriminator's judgement; 0 trains without one."""
    adversarial_form: Literal["non_saturating", "logistic", "vanilla", "hinge", "least_squares"] = "non_saturating"
    """Losses of the two players; see `eqxgen.losses.adversarial`."""
    adversarial_start: int = 0
    """First step of the adversarial losses."""
    adaptive: bool = False
    """Scale the adversarial term by the gradients at the decoder's last layer (arXiv:2012.09841, equation 7)."""
    alternate: bool = False
    """Update the discriminator after the autoencoder, on new reconstructions, as published; costs a forward pass."""
    critic: Literal["style", "patch"] = "style"
    """The discriminator: StyleGAN2's residual one, or the PatchGAN."""
    critic_width: int = 64
    """Channels of its first level."""
    critic_layers: int = 3
    """Halvings of the PatchGAN."""
    critic_norm: Literal["batch", "act"] = "batch"
    """Norm of the PatchGAN."""
    discriminator: DiscriminatorConfig = option(factory=DiscriminatorConfig)
    """The discriminator's optimiser."""
    r1: float = 10.0
    """Weight γ of the penalty γ/2 |gradient|² of the style discriminator on real images; 0: none."""
    r1_every: int = 16
    """Steps between penalties, each of which counts as many times (arXiv:1912.04958, appendix B)."""
    lecam: float = 0.0
    """Weight of the LeCam penalty of the discriminator (arXiv:2104.03310)."""

    @property
    def unread(self) -> Mapping[str, str]:
        names = dict.fromkeys(_OF_DISCRIMINATOR, "--adversarial above 0") if not self.adversarial else {}
        names |= {} if self.critic == "style" else dict.fromkeys(("r1", "r1_every"), "--critic style")
        names |= {} if self.critic == "patch" else dict.fromkeys(("critic_layers", "critic_norm"), "--critic patch")
        return names | (
            {} if self.perceptual else dict.fromkeys(("perceptual_net", "perceptual_name"), "--perceptual above 0")
        )

    def __post_init__(self):
        super().__post_init__()
        for name in ("r1_every", "critic_width", "critic_layers"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1: got {getattr(self, name)}")
        check_weights(self, "pixel", "adversarial", "perceptual", "r1", "lecam")
        require(
            self.pixel + self.perceptual > 0 or (self.adversarial > 0 and not self.adaptive),
            "pixel must be above 0 without perceptual or adversarial, or without perceptual with adaptive, as nothing "
            f"would teach the decoder: got {self.pixel:g}",
        )
        start = self.adversarial_start
        require(start >= 0, f"adversarial_start must be at least 0: got {start}")
        require(
            not self.adversarial or start < self.steps,
            f"adversarial_start must be before the end of the run: got {start} with steps={self.steps}; give a smaller "
            "one, more --steps, or --adversarial 0",
        )
        require(
            not self.perceptual or bool(self.perceptual_net),
            "perceptual_net must name a file of weights with perceptual above 0: got ''",
        )


def check_weights(config: JudgedConfig, *names: str) -> None:
    """Raises `ValueError` for the first that is negative or not finite."""
    for name in names:
        value = getattr(config, name)
        require(0 <= value < float("inf"), f"{name} must be at least 0 and finite: got {value}")


_OF_DISCRIMINATOR = (
    *("discriminator.", "r1", "r1_every", "adversarial_form", "adversarial_start", "adaptive", "alternate"),
    *("critic", "critic_width", "critic_layers", "critic_norm", "lecam"),
)
