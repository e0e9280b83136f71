"""Train a variational autoencoder (Kingma and Welling 2014, arXiv:1312.6114) on images.

  python -m train.vae                                           # digits
  python -m train.vae --preset mnist --data.root DATA           # 784-400-20; from a folder that has mnist/
  python -m train.vae --preset mnist-iwae --data.root DATA      # 784-200-200-50, binarised anew each epoch
  python -m train.vae --preset mnist-iwae --k 50 --data.root DATA   # the importance-weighted bound of 50 draws

Loss: the negative evidence lower bound in nats, summed over the pixels of an image and averaged over the batch; with
--k above 1 the importance-weighted bound (Burda et al. 2016, arXiv:1509.00519). --binarise draws each pixel from its
grey level, a function of the seed, the step and the example; held-out images are drawn with one seed for all runs,
which is printed. Writes runs/vae-PRESET; its pictures have held-out images above their reconstructions, then draws from
the prior. In summary.json, eval_loss is the negative bound of the held-out images and nll_iw500 the importance-weighted
estimate of 500 draws on the first --eval-samples of them; sample_accuracy and sample_frechet are of reconstructions,
and the evaluator fidelity judges draws from the prior.
"""

import dataclasses
import math
from typing import TYPE_CHECKING, Any

from eqxgen.configs import VAEConfig

from ._errors import require
from .config.data import DataConfig
from .config.evals import CLASSIFIER, ELBO, FIDELITY, Evaluation, likelihood_of
from .config.optim import EmaConfig, OptimConfig
from .config.options import option
from .tasks.autoencoders import prior_recipe
from .tasks.facts import ImageFacts
from .tasks.images import ImageConfig, check_sides

if TYPE_CHECKING:  # jax is imported where it is used, so that --help does not wait for it
    from .engine.recipe import Change, Program


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ImageConfig):
    """Every flag starts from the preset's value."""

    beta: float = option(1.0, first=True)
    """Weight of the divergence from the prior; 1: a bound of the likelihood."""
    k: int = option(1, first=True)
    """Draws of the posterior in the training bound; above 1 the importance-weighted one."""
    binarise: bool = option(False, first=True)
    """Draw each pixel black or white with the probability that its grey level is."""
    data_bias: bool = False
    """Start the decoder's last bias at the mean of the first batch."""
    iw_samples: int = option(500, free=True)
    """Draws of the evaluator likelihood, which the name of its number states."""
    model: VAEConfig = option(factory=VAEConfig, first=("hidden", "latent_dim", "channels", "likelihood"))
    """The autoencoder."""

    @property
    def EVALS(self) -> tuple[Evaluation, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Evaluators that the recipe offers."""
        return ELBO, likelihood_of(self.iw_samples), CLASSIFIER, FIDELITY

    def __post_init__(self):
        super().__post_init__()
        require(0 <= self.beta < math.inf, f"beta must be at least 0 and finite: got {self.beta}")
        for name in ("k", "iw_samples"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1: got {getattr(self, name)}")
        require(self.k == 1 or self.beta == 1, f"beta must be 1 with k above 1: got beta={self.beta}, k={self.k}")
        bernoulli = self.model.likelihood == "bernoulli"
        require(
            bernoulli or not self.binarise,
            f"binarise goes with model.likelihood=bernoulli: got {self.model.likelihood}",
        )


_ADAM: dict[str, Any] = {"beta2": 0.999, "weight_decay": 0.0, "clip": math.inf, "warmup": 0}
_EPOCH = 469  # steps of 128 over 60,000 images


def _preset(name: str, steps: int, model: VAEConfig, data: DataConfig | None = None, **changes: Any) -> Config:
    values = {
        "batch_size": 128,
        "data": data or DataConfig(name="mnist"),
        "optim": OptimConfig(learning_rate=1e-3, decay="constant", **_ADAM),
        "ema": EmaConfig(decay=0.0),  # the published numbers are of the last weights
    }
    return Config(preset=name, steps=steps, model=model, **values | changes)


_COSINE: dict[str, Any] = {"optim": OptimConfig(learning_rate=1e-3, decay="cosine", **_ADAM)}

PRESETS = {
    "digits": _preset(
        "digits", 2000, VAEConfig(hidden=(128,), latent_dim=8), DataConfig(name="digits"), data_bias=True, **_COSINE
    ),
    "mnist": _preset("mnist", 10 * _EPOCH, VAEConfig()),
    "mnist-iwae": _preset(
        "mnist-iwae",
        60 * 600,
        VAEConfig.iwae(),
        batch_size=100,
        binarise=True,
        data_bias=True,
        eval_samples=2000,
        **_COSINE,
    ),
    "celeba64": _preset(
        "celeba64",
        100_000,
        dataclasses.replace(
            VAEConfig.pax(), channels=(32, 64, 128), hidden=(256,), latent_dim=64, likelihood="gaussian"
        ),
        DataConfig(name="./celeba64", image_size=64),
        precision="bfloat16",
        data_bias=True,
    ),
}


ABOUT = {
    "digits": "0.02 M parameters; 82 s on 2 CPU cores beside other work; eval_loss 24.5, nll_iw500 24.4",
    "mnist": "0.65 M parameters; 10 epochs; eval_loss 105.6, mean of 3 seeds",
    "mnist-iwae": "0.43 M parameters; 41 minutes of one CPU core beside other work; eval_loss 95.6, nll_iw500 91.6",
    "celeba64": "2.5 M parameters; 100,000 steps of 128, for a GPU",
}
"""Size, time and the number to expect of each preset, where it was measured."""


def model(config: Config, facts: ImageFacts) -> Any:
    """Initialiser of the autoencoder."""
    from eqxgen.models import VAE

    check_sides("--model.channels: each convolution halves the image, so", config.model.factor, facts.shape)
    return lambda key: VAE(*facts.shape, config.model, key=key)


def program(config: Config, facts: ImageFacts) -> "Program":
    """The autoencoder and its bound."""
    import jax
    import jax.numpy as jnp
    import jax.random as jr

    from eqxgen.losses.elbo import importance_weighted_nll, negative_elbo

    from .engine.recipe import Context, Program, Sums
    from .evaluators.likelihood import binarised

    def bound(model: Any, image: jax.Array, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        pixels, key = jr.split(key)
        image = binarised(image, key=pixels) if config.binarise else image
        if config.k > 1:
            return importance_weighted_nll(model, image, config.k, key=key), {}
        found = negative_elbo(model, image, beta=config.beta, key=key)
        return found.total, {"reconstruction": found.reconstruction, "divergence": found.divergence}

    def loss(model: Any, batch: dict[str, jax.Array], keys: jax.Array, _: Context) -> Sums:
        losses, terms = jax.vmap(lambda image, key: bound(model, image, key))(batch["image"], keys)
        weight = batch["weight"]
        return Sums(weight @ losses, jnp.sum(weight), {name: weight @ term for name, term in terms.items()})

    changes = {"mean": _placed()} if config.data_bias else {}
    return Program.of(model(config, facts), loss, {"image": (facts.shape, "float32")}, changes=changes)


def _placed() -> "Change":
    """The decoder's last bias at the mean of the first batch, before the first step."""
    import jax.numpy as jnp

    from .engine.recipe import Change

    def change(model: Any, batch: dict[str, Any], key: Any, context: Any) -> tuple[Any, Any]:
        images, weight = batch["image"], batch["weight"]
        # One grey image more keeps the logit of a pixel that is black throughout finite.
        mean = jnp.tensordot(weight, images, 1) / (jnp.sum(weight) + 1.0)
        return model.with_mean(mean), context.state

    return Change(change, lambda step: step == 0, ("model.decoder.head.bias",))


RECIPE = prior_recipe(
    "vae", "Variational autoencoder", Config, PRESETS, model, program, released=lambda model, _: model
)
main = RECIPE.main

if __name__ == "__main__":
    RECIPE.command(__doc__, ABOUT)
