"""A block of two streams, image and text, with one attention over both."""

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen import ops
from eqxgen.nn import _check
from eqxgen.nn.attention.self_attention import SelfAttention, join_heads
from eqxgen.nn.linear import Initializer, torch_uniform
from eqxgen.nn.transformer.condition import AdaLN, AdaLNZero
from eqxgen.nn.transformer.mlp import MLP


class Stream(eqx.Module):
    """The half of a `Jointformer` for one modality: the projections of its attention, its MLP and their norms.

    The last one of the text has no MLP and no gates.
    """

    attention: SelfAttention  # projections alone
    mlp: MLP | None
    attention_norm: AdaLNZero | AdaLN
    mlp_norm: AdaLNZero | None

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        condition_dim: int | None,
        hidden_dim: int | None,
        qk_norm: bool,
        last: bool,
        init: Initializer,
        key: PRNGKeyArray,
    ):
        keys = jr.split(key, 4)
        attention = SelfAttention(dim, heads, qk_norm=qk_norm, init=init, key=keys[0])
        unused = lambda layer: (layer.out.weight, layer.out.bias)
        self.attention = eqx.tree_at(unused, attention, (None, None)) if last else attention
        self.mlp = None if last else MLP(dim, hidden_dim, activation="gelu_tanh", init=init, key=keys[1])
        kind = AdaLN if last else AdaLNZero
        self.attention_norm = kind(dim, condition_dim, key=keys[2])
        self.mlp_norm = None if last else AdaLNZero(dim, condition_dim, key=keys[3])

    def start(self, x: Array, condition: Array) -> tuple[tuple[Array, Array, Array], Array | None]:
        """Queries, keys and values, and the gate of what is attended to."""
        found = self.attention_norm(x, condition)
        y, gate = found if isinstance(found, tuple) else (found, None)
        return self.attention._heads(y, None), gate

    def finish(self, x: Array, attended: Array, gate: Array | None, condition: Array) -> Array:
        """The tokens after attention and MLP."""
        if self.mlp is None or self.mlp_norm is None or gate is None:
            return x
        x = x + gate * self.attention.out(join_heads(attended))
        y, gate = self.mlp_norm(x, condition)
        return x + gate * self.mlp(y)


class Jointformer(eqx.Module):
    """The block of MM-DiT: image and text, each with weights of its own, in one attention over the tokens of both
    (Esser et al. 2024, arXiv:2403.03206, figure 2b).

    `x + gate * f(norm(x) * (1 + scale) + shift)` in each stream, for attention, then for an MLP; shift, scale and gate
    are computed from the condition and are zero at initialisation.

    Args:
        dim: width of a token, kept.
        heads: number of attention heads.
        condition_dim: size of the condition, such as of time and pooled text; `dim` by default.
        hidden_dim: inner width of each MLP; 4 * dim by default.
        qk_norm: RMS norm of queries and keys, as in Stable Diffusion 3.5.
        last: the text is attended to and not changed, as in the last block of Stable Diffusion 3.
        init: initializer of the weights of attention and MLP.

    Raises:
        ValueError: a number violates its constraint; x or the text is not one sequence of width `dim`, or the condition
            not one vector.
    """

    image: Stream
    text: Stream

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        condition_dim: int | None = None,
        hidden_dim: int | None = None,
        qk_norm: bool = False,
        last: bool = False,
        init: Initializer = torch_uniform,
        key: PRNGKeyArray,
    ):
        make = lambda last, key: Stream(
            dim,
            heads,
            condition_dim=condition_dim,
            hidden_dim=hidden_dim,
            qk_norm=qk_norm,
            last=last,
            init=init,
            key=key,
        )
        image_key, text_key = jr.split(key)
        self.image, self.text = make(False, image_key), make(last, text_key)

    def __call__(
        self,
        x: Float[Array, "seq dim"],
        text: Float[Array, "text_seq dim"],
        condition: Float[Array, " condition_dim"],
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> tuple[Float[Array, "seq dim"], Float[Array, "text_seq dim"]]:
        """The image's tokens and the text's after the block.

        Args:
            x: tokens of the image.
            text: tokens of the text.
            condition: the vector that modulates both.
            key, inference: not used; every block has them.
        """
        dim = self.image.attention.qkv.in_dim
        _check.example(x, "seq", dim=dim)
        _check.example(text, "text_seq", name="text", dim=dim)
        ours, gate = self.image.start(x, condition)
        theirs, text_gate = self.text.start(text, condition)
        joined = (jnp.concatenate(pair) for pair in zip(ours, theirs))
        y = ops.dot_product_attention(*joined)
        x_part, text_part = y[: x.shape[0]], y[x.shape[0] :]
        x = self.image.finish(x, x_part, gate, condition)
        return x, self.text.finish(text, text_part, text_gate, condition)
