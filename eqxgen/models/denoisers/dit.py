"""DiT: a transformer that denoises latents (Peebles and Xie 2023, arXiv:2212.09748).

The latent is cut into patches, each a token with fixed sine and cosine positions. The embeddings of time and label are
added; each block projects the sum to the shift, scale and gate of its two halves (adaLN-Zero: the gates and the last
layer start at zero, so each block starts as the identity and the model at zero). Weights are Xavier uniform, those of
the embeddings normal with deviation 0.02, norms have epsilon 1e-6.

With `gated`, `rms`, `rope` and `qk_norm` it is LightningDiT (Yao et al. 2025, arXiv:2501.01423). With `times` 2 it has
an embedding of an interval of time, added to that of the time, and is an average velocity (MeanFlow, Geng et al. 2025,
arXiv:2505.13447, section 4.3).

Difference: the caller drops labels for classifier-free guidance, by `null_label`.
"""

import equinox as eqx
import jax
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen._widen import widen
from eqxgen.configs import DiTConfig
from eqxgen.nn import (
    AdaLN,
    AxialRoPE,
    Embedding,
    PatchEmbed,
    Stack,
    Timeformer,
    TimestepEmbedding,
    Unpatch,
    _check,
    sincos_table,
)
from eqxgen.rng import RNG

_xavier = jax.nn.initializers.glorot_uniform(in_axis=-1, out_axis=-2)
_small = jax.nn.initializers.normal(0.02)
_zeros = jax.nn.initializers.zeros
EPSILON = 1e-6
GUIDE = 3
"""Numbers of guidance: the scale and the two ends of its interval."""


class DiT(eqx.Module):
    """The noise of a noised latent, followed with `learn_variance` by as many channels for its variance.

    Args:
        height, width, channels: of the latent; the patch size divides the first two.
        classes: number of labels.
        config: the sizes.
    """

    patches: PatchEmbed
    time: TimestepEmbedding
    labels: Embedding
    stack: Stack
    norm: AdaLN
    out: Unpatch
    span: TimestepEmbedding | None
    guide: tuple[TimestepEmbedding, ...] | None
    height: int = eqx.field(static=True)
    width: int = eqx.field(static=True)
    channels: int = eqx.field(static=True)
    classes: int = eqx.field(static=True)
    patch: int = eqx.field(static=True)

    def __init__(self, height: int, width: int, channels: int, classes: int, config: DiTConfig, *, key: PRNGKeyArray):
        _check.positive(height=height, width=width, channels=channels, classes=classes)
        _check.divides(patch=config.patch, height=height)
        _check.divides(patch=config.patch, width=width)
        keys, dim = RNG(key), config.dim
        self.patches = PatchEmbed(channels, dim, patch=config.patch, init=_xavier, key=next(keys))
        self.time = TimestepEmbedding(dim, shift=config.time_shift, init=_small, key=next(keys))
        self.labels = Embedding(classes + 1, dim, init=_small, key=next(keys))
        grid = height // config.patch, width // config.patch
        rope = AxialRoPE(dim // config.heads, grid, base=10_000.0) if config.rope else None
        block = lambda key: Timeformer(
            dim,
            config.heads,
            hidden_dim=config.hidden_dim,
            epsilon=EPSILON,
            mlp_epsilon=config.mlp_epsilon,
            gated=config.gated,
            rms=config.rms,
            qk_norm=config.qk_norm,
            rope=rope,
            init=_xavier,
            key=key,
        )
        self.stack = Stack(block, config.depth, remat=config.remat, key=next(keys))
        self.norm = AdaLN(dim, epsilon=EPSILON, rms=config.rms, key=next(keys))
        out_channels = channels * (2 if config.learn_variance else 1)
        self.out = Unpatch(dim, out_channels, patch=config.patch, init=_zeros, key=next(keys))
        number = lambda: TimestepEmbedding(dim, shift=config.time_shift, init=_small, key=next(keys))
        self.span = number() if config.times == 2 else None
        self.guide = tuple(number() for _ in range(GUIDE)) if config.guide else None
        self.height, self.width, self.channels, self.classes, self.patch = (
            height,
            width,
            channels,
            classes,
            config.patch,
        )

    @property
    def null_label(self) -> int:
        """The label of no class."""
        return self.classes

    def __call__(
        self,
        x: Float[Array, "height width channels"],
        time: Float[Array, ""],
        label: _check.Ids,
        *,
        span: Float[Array, ""] | None = None,
        guide: Float[Array, "3"] | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "height width out_channels"]:
        """In float32 at least.

        Args:
            x: the noised latent.
            time: how far the noise has come, in steps of the schedule, 0 to 1,000 in the paper.
            label: in [0, classes), or `null_label`.
            span: with two times, the interval down to the second, in the unit of the time.
            guide: with `guide`, the guidance scale and the two ends of its interval, in the unit of the time.
            key, inference: not used; every model has them.

        Raises:
            ValueError: x has another shape; span or guide is missing or superfluous; or the label is out of range
                (inside a compiled program it gives NaN instead).
        """
        _check.example(x, height=self.height, width=self.width, channels=self.channels)
        label = _check.label(label, self.classes)
        rows, columns = self.height // self.patch, self.width // self.patch
        tokens = self.patches(x)
        positions = sincos_table((rows, columns), tokens.shape[-1]).reshape(rows * columns, -1)
        tokens = tokens + positions.astype(x.dtype)
        condition = self.time(time, dtype=x.dtype) + self.labels(label)
        _given("span", span, self.span, "times=2")
        _given("guide", guide, self.guide, "guide=True")
        if self.span is not None and span is not None:
            condition = condition + self.span(span, dtype=x.dtype)
        for embedding, number in zip(self.guide or (), () if guide is None else guide):
            condition = condition + embedding(number, dtype=x.dtype)
        tokens = self.stack(tokens, condition, inference=inference)
        y = self.out(self.norm(tokens, condition), rows=rows)
        return widen(y)


def _given(name: str, value: Array | None, embedding: object, option: str) -> None:
    if (value is None) != (embedding is None):
        verb = "given to a net with" if value is None else "None for a net without"
        raise ValueError(f"{name} must be {verb} {option}: got {value if value is None else value.shape}")
