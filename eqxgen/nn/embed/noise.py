"""The condition of a denoiser: noise level, class and augmentation as one vector."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, DTypeLike, Float, PRNGKeyArray

from eqxgen.nn import _check
from eqxgen.nn._mesh import take_rows
from eqxgen.nn.activation import Activation
from eqxgen.nn.embed.fourier import RandomFourier
from eqxgen.nn.embed.sinusoid import SinusoidalEmbedding
from eqxgen.nn.linear import Initializer, Projection, torch_uniform
from eqxgen.rng import RNG


class ClassEmbedding(eqx.Module):
    """A class as a vector; the label `classes`, of no class, as zeros.

    As a linear map of one-hot vectors, with zeros for no class (Karras et al. 2022, arXiv:2206.00364, section 5).

    Args:
        classes: number of labels.
        dim: size of the vector.
        bias: adds a bias, also for no class.
        scaled: multiplies rows by sqrt(classes), so that the one-hot vectors have magnitude 1.
        init: initializer of the table `(classes, dim)`.

    Raises:
        ValueError: the label is out of range (inside a compiled program it gives NaN instead).
    """

    weight: Float[Array, "classes dim"]
    bias: Float[Array, " dim"] | None
    classes: int = eqx.field(static=True)
    scaled: bool = eqx.field(static=True)

    def __init__(
        self,
        classes: int,
        dim: int,
        *,
        bias: bool = False,
        scaled: bool = False,
        init: Initializer = jax.nn.initializers.normal(1.0),  # noqa: B008
        key: PRNGKeyArray,
    ):
        _check.positive(classes=classes, dim=dim)
        self.weight = init(key, (classes, dim), jnp.float32)
        self.bias = jnp.zeros(dim) if bias else None
        self.classes, self.scaled = int(classes), scaled

    def __call__(self, label: _check.Ids, *, key: PRNGKeyArray | None = None) -> Float[Array, " dim"]:
        label = _check.label(label, self.classes)
        null = label == self.classes
        row = take_rows(self.weight, jnp.where(null, 0, label))
        row = jnp.where(null, jnp.zeros_like(row), row * math.sqrt(self.classes) if self.scaled else row)
        return row if self.bias is None else row + self.bias


class NoiseEmbedding(eqx.Module):
    """Noise level, class and augmentation as one vector: waves, then two projections with an activation after each.

    Class and augmentation are added before the projections, as in EDM's DDPM++ (Karras et al. 2022, arXiv:2206.00364,
    appendix F), or, with `late`, the class after them, as in ADM and diffusers' U-Net.

    Args:
        features: number of waves; even.
        dim: size of the vector, and between the projections.
        classes: number of labels; 0 for none.
        augment: number of augmentation labels; 0 for none.
        times: 2 adds the waves of an interval of time, projected, before the projections.
        fourier: cosines and sines of random frequencies for the noise level, see `RandomFourier`.
        flip, shift: as in `SinusoidalEmbedding`.
        late: adds the class after the projections.
        activation: by name.
        scaled, bias: see `ClassEmbedding`.
        init: initializer of the projections.
    """

    waves: SinusoidalEmbedding | RandomFourier
    up: Projection
    down: Projection
    labels: ClassEmbedding | None
    augment: Projection | None
    span: Projection | None
    activation: Activation
    late: bool = eqx.field(static=True)

    def __init__(
        self,
        features: int,
        dim: int,
        *,
        classes: int = 0,
        augment: int = 0,
        times: int = 1,
        fourier: bool = False,
        flip: bool = False,
        shift: int = 0,
        late: bool = False,
        scaled: bool = False,
        bias: bool = False,
        activation: str = "swish",
        init: Initializer = torch_uniform,
        key: PRNGKeyArray,
    ):
        keys = RNG(key)
        self.waves = (
            RandomFourier(features, flip=flip, key=next(keys))
            if fourier
            else SinusoidalEmbedding(features, flip=flip, shift=shift)
        )
        self.up = Projection(features, dim, init=init, key=next(keys))
        self.down = Projection(dim, dim, init=init, key=next(keys))
        wide = dim if late else features
        self.labels = ClassEmbedding(classes, wide, scaled=scaled, bias=bias, key=next(keys)) if classes else None
        self.augment = Projection(augment, features, bias=False, init=init, key=next(keys)) if augment else None
        self.span = Projection(features, features, bias=False, init=init, key=next(keys)) if times == 2 else None
        self.activation, self.late = Activation(activation), late

    def __call__(
        self,
        time: Float[Array, ""],
        label: _check.Ids | None = None,
        augment: Float[Array, " augment"] | None = None,
        *,
        span: Float[Array, ""] | None = None,
        dtype: DTypeLike | None = None,
        key: PRNGKeyArray | None = None,
    ) -> Float[Array, " dim"]:
        """The activated vector, in `dtype`, by default that of the time.

        Raises:
            ValueError: a label or an interval is missing, or one is given that the layer has nothing for; likewise for
                augmentation, whose labels are zero by default.
        """
        if (label is None) != (self.labels is None):
            raise ValueError(f"label must be {'given' if label is None else 'None'}: {self._about()}")
        if augment is not None and self.augment is None:
            raise ValueError("augment must be None: the net has no augmentation labels")
        if (span is None) != (self.span is None):
            raise ValueError(f"span must be {'given' if span is None else 'None'}: the net has {self._times} time(s)")
        y = self.waves(time)
        y = y if dtype is None else y.astype(dtype)
        if self.span is not None and span is not None:
            y = y + self.span(self.waves(span).astype(y.dtype))
        named = None if self.labels is None or label is None else self.labels(label).astype(y.dtype)
        y = y if named is None or self.late else y + named
        if self.augment is not None and augment is not None:
            _check.example(augment, name="augment", labels=self.augment.in_dim)
            y = y + self.augment(augment.astype(y.dtype))
        y = self.down(self.activation(self.up(y)))
        return self.activation(y if named is None or not self.late else y + named)

    @property
    def _times(self) -> int:
        return 1 if self.span is None else 2

    def _about(self) -> str:
        return (
            "the net has no classes"
            if self.labels is None
            else f"an integer in [0, {self.labels.classes}), or {self.labels.classes} for no class"
        )
