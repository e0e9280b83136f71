"""DiT: a transformer that takes the noise out of latents (Peebles and Xie 2023, arXiv:2212.09748).

The latent is cut into patches, each a token with fixed sine and cosine positions. Time and label make one vector, from which every block
makes the shift, scale and gate of its two halves (adaLN-Zero: the gates and the last layer start at zero, so each block starts as the
identity and the model at zero). Weights are Xavier uniform, the embeddings' normal with deviation 0.02, norms have epsilon 1e-6.

Where we differ: labels are dropped for classifier-free guidance by the caller, who gives `null_label`.
"""

import einops
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen import ops
from eqxgen.configs import DiTConfig
from eqxgen.nn import MLP, Embedding, Projection, SelfAttention, Stack, TimestepEmbedding, _check, sincos_table
from eqxgen.nn.linear import check_ids
from eqxgen.rng import RNG

_xavier = jax.nn.initializers.glorot_uniform(in_axis=-1, out_axis=-2)
_small = jax.nn.initializers.normal(0.02)
_zeros = jax.nn.initializers.zeros
EPSILON = 1e-6


class DiTBlock(eqx.Module):
    """`x + gate * f(norm(x) * (1 + scale) + shift)` for attention, then for an MLP (section 3.2 of the paper).

    Args:
        dim: width of a token, kept, and of the condition.
        heads: attention heads; divides dim.
        hidden_dim: inner width of the MLP.
    """

    attention: SelfAttention
    mlp: MLP
    modulation: Projection

    def __init__(self, dim: int, heads: int, hidden_dim: int, *, key: PRNGKeyArray):
        attention_key, mlp_key, key = jr.split(key, 3)
        self.attention = SelfAttention(dim, heads, init=_xavier, key=attention_key)
        self.mlp = MLP(dim, hidden_dim, activation="gelu_tanh", init=_xavier, key=mlp_key)
        self.modulation = Projection(dim, 6 * dim, init=_zeros, key=key)

    def __call__(
        self,
        x: Float[Array, "seq dim"],
        condition: Float[Array, " dim"],
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "seq dim"]:
        shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = _rows(self.modulation, condition, 6)
        x = x + gate * self.attention(_modulated(x, shift, scale), inference=inference)
        return x + mlp_gate * self.mlp(_modulated(x, mlp_shift, mlp_scale), inference=inference)


class DiT(eqx.Module):
    """The noise in a noised latent; and with `learn_variance`, behind it, as many channels for its variance.

    Args:
        height, width, channels: of the latent; the patch size divides the first two.
        classes: number of labels.
        config: the sizes.
    """

    patches: Projection
    time: TimestepEmbedding
    labels: Embedding
    stack: Stack
    modulation: Projection
    out: Projection
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
        self.patches = Projection(config.patch**2 * channels, dim, init=_xavier, key=next(keys))
        self.time = TimestepEmbedding(dim, init=_small, key=next(keys))
        self.labels = Embedding(classes + 1, dim, init=_small, key=next(keys))
        block = lambda key: DiTBlock(dim, config.heads, config.hidden_dim, key=key)
        self.stack = Stack(block, config.depth, remat=config.remat, key=next(keys))
        self.modulation = Projection(dim, 2 * dim, init=_zeros, key=next(keys))
        out_channels = channels * (2 if config.learn_variance else 1)
        self.out = Projection(dim, config.patch**2 * out_channels, init=_zeros, key=next(keys))
        self.height, self.width, self.channels, self.classes, self.patch = height, width, channels, classes, config.patch

    @property
    def null_label(self) -> int:
        """The label that stands for none."""
        return self.classes

    def __call__(
        self,
        x: Float[Array, "height width channels"],
        time: Float[Array, ""],
        label: Int[Array, ""],
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "height width out_channels"]:
        """In float32 at least.

        Args:
            x: the noised latent.
            time: how far the noise has come, in steps of the schedule, 0 to 1,000 in the paper.
            label: in [0, classes), or `null_label`.
            key, inference: not used; every model has them.

        Raises:
            ValueError: x has another shape, or the label is out of range (inside a compiled program it gives NaN instead).
        """
        if x.shape != (self.height, self.width, self.channels):
            raise ValueError(f"x must have the latent's shape ({self.height}, {self.width}, {self.channels}): got {x.shape}")
        check_ids(label, self.classes + 1, "label", "classes + 1 null")
        cut = {"p": self.patch, "q": self.patch}
        tokens = einops.rearrange(x, "(h p) (w q) c -> (h w) (p q c)", **cut)
        rows, columns = self.height // self.patch, self.width // self.patch
        positions = sincos_table((rows, columns), self.patches.out_dim).reshape(rows * columns, -1)
        tokens = self.patches(tokens) + positions.astype(x.dtype)
        condition = self.time(time, dtype=x.dtype) + self.labels(label)
        tokens = self.stack(tokens, condition, inference=inference)
        y = self.out(_modulated(tokens, *_rows(self.modulation, condition, 2)))
        y = y.astype(jnp.promote_types(y.dtype, jnp.float32))
        return einops.rearrange(y, "(h w) (p q c) -> (h p) (w q) c", h=rows, **cut)


def _rows(modulation: Projection, condition: Float[Array, " dim"], count: int) -> list[Float[Array, "1 dim"]]:
    return list(jnp.split(modulation(jax.nn.silu(condition))[None], count, axis=-1))


def _modulated(x: Float[Array, "seq dim"], shift: Float[Array, "1 dim"], scale: Float[Array, "1 dim"]) -> Float[Array, "seq dim"]:
    return ops.layer_norm(x, modulation=(shift, scale), epsilon=EPSILON)
