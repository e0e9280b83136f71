"""Class-conditional autoregressive model of image tokens: LlamaGen's transformer (Sun et al. 2024, arXiv:2406.06525).

The class is token 0 of a causal LLaMA: RMSNorm, SwiGLU, no biases, an untied head that starts at zero, and rotary
positions on the grid. The loss is `eqxgen.losses.image_ar`, the sampler `eqxgen.decoding.images`.

With `config.targets`, a learned position of the token to come is added to every input, so that the tokens can be
learned in any order (Yu et al. 2024, arXiv:2411.00776, RAR); decoding is row by row.

Differences: the class is at the origin of the grid, unless `config.blank_prefix`, with which its query and key are zero
as in the published code; no grouped queries, and text is not a prefix.
"""

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, DTypeLike, Float, Int, PRNGKeyArray, PyTree

from eqxgen.configs import ImageARConfig
from eqxgen.nn import (
    GLU,
    AxialRoPE,
    Dropout,
    Embedding,
    Projection,
    RMSNorm,
    SelfAttention,
    Stack,
    TransformerBlock,
    _check,
)
from eqxgen.nn.linear import check_ids, times_rows

_normal = jax.nn.initializers.normal(0.02)


class Caches(eqx.Module):
    """Memory of the class and the tokens so far: caches of the blocks, and the number of tokens that were given."""

    blocks: PyTree
    count: Int[Array, ""]


class ImageAR(eqx.Module):
    """Logits of every token of one image, each from the class and the tokens before it.

    Args:
        grid: rows and columns of the tokens.
        codes: size of the tokenizer's codebook.
        classes: number of labels.
        config: the sizes.
    """

    embedding: Embedding
    labels: Embedding
    target_positions: Float[Array, "tokens dim"] | None
    dropout: Dropout
    stack: Any
    norm: RMSNorm
    head: Projection
    grid: tuple[int, int] = eqx.field(static=True)
    classes: int = eqx.field(static=True)
    null: bool = eqx.field(static=True)

    def __init__(self, grid: tuple[int, int], codes: int, classes: int, config: ImageARConfig, *, key: PRNGKeyArray):
        grid = _check.pair("grid", grid, "rows", "columns")
        _check.positive(codes=codes, classes=classes)
        code_key, label_key, target_key, stack_key, head_key = jr.split(key, 5)
        dim, tokens = config.dim, grid[0] * grid[1]
        self.embedding = Embedding(codes, dim, init=_normal, key=code_key)
        self.labels = Embedding(classes + config.null, dim, init=_normal, key=label_key)
        self.target_positions = _normal(target_key, (tokens, dim), jnp.float32) if config.targets else None
        self.dropout = Dropout(config.dropout)
        block = functools.partial(_block, config, grid)
        self.stack = Stack(block, config.depth, remat=config.remat, key=stack_key)
        self.norm = RMSNorm(dim, epsilon=config.epsilon)
        self.head = Projection(dim, codes, bias=False, init=jax.nn.initializers.zeros, key=head_key)
        self.grid, self.classes, self.null = grid, classes, config.null

    @property
    def tokens(self) -> int:
        """Tokens of one image."""
        return self.grid[0] * self.grid[1]

    @property
    def codes(self) -> int:
        """Number of codes; ids are in [0, codes)."""
        return self.embedding.vocab

    @property
    def null_label(self) -> int | None:
        """Label of an example without one; None with `config.null=False`."""
        return self.classes if self.null else None

    def __call__(
        self,
        ids: _check.Ids,
        label: _check.Ids,
        *,
        order: _check.Ids | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "tokens codes"]:
        """Logits, in float32 at least; the last token is not read.

        Args:
            ids: codes in [0, codes): an array (tokens,) of integers, or a list.
            label: in [0, classes), or `null_label`.
            order: a permutation of the positions: logits i are those of the token at `order[i]`, given the tokens
                before it in the order. Row by row by default.
            key: of dropout; needed in training, where there is any.
            inference: no dropout, if true.

        Raises:
            ValueError: an id or a label is no integer, of another shape, or out of range (under jit it gives NaN
                logits instead); an order is no permutation, or is given to a model without `config.targets`.
        """
        ids = check_ids(ids, self.codes, "ids", "codes")
        _check.example(ids, name="ids", tokens=self.tokens)
        if order is not None and self.target_positions is None:
            raise ValueError("order needs a model with config.targets, which tell it the token to come: got none")
        order = None if order is None else _check.permutation(order, self.tokens, "order")
        places = jnp.arange(self.tokens) if order is None else order
        x = jnp.concatenate([self._label(label)[None], self.embedding(ids[places[:-1]])])
        if self.target_positions is not None:
            x = x + self.target_positions[places].astype(x.dtype)
        positions = None if order is None else jnp.pad(1 + order[:-1], (1, 0))
        embed_key, stack_key = (None, None) if key is None else jr.split(key)
        x = self.dropout(x, key=embed_key, inference=inference)
        return self._logits(self.stack(x, positions=positions, key=stack_key, inference=inference))

    def check_condition(self, label: _check.Ids) -> Int[Array, ""]:
        """The label as an array.

        Raises:
            ValueError: it is no integer, no scalar or out of range; inside a compiled program a label out of the range
                gives NaN logits instead.
        """
        return _check.label(label, self.classes, self.null)

    def start(self, label: _check.Ids, dtype: DTypeLike = jnp.float32) -> tuple[Float[Array, " codes"], Caches]:
        """Logits of the first token, and the memory of the class, with room for all tokens but the last."""
        empty = Caches(self.stack.cache(self.tokens, dtype), jnp.zeros((), jnp.int32))
        return self._extended(self._label(label), empty)

    def extend(self, token: _check.Ids, cache: Caches) -> tuple[Float[Array, " codes"], Caches]:
        """Logits of the next token, and the memory with the token added; without dropout.

        Raises:
            ValueError: the id is out of range, or the memory is full; under jit the logits are NaN instead.
        """
        return self._extended(self.embedding(check_ids(token, self.codes, "token", "codes")), cache)

    def unrolled(self) -> "ImageAR":
        """The model for decoding, see `Stack.unrolled`; it cannot be trained."""
        return eqx.tree_at(lambda model: model.stack, self, self.stack.unrolled())

    def _extended(self, x: Array, cache: Caches) -> tuple[Array, Caches]:
        if self.target_positions is not None:
            x = x + self.target_positions.at[cache.count].get(mode="fill", fill_value=jnp.nan).astype(x.dtype)
        x, blocks = self.stack.extend(x[None], cache.blocks)
        return self._logits(x)[0], Caches(blocks, cache.count + 1)

    def _label(self, label: _check.Ids) -> Array:
        return self.labels(self.check_condition(label))

    def _logits(self, x: Array) -> Array:
        return times_rows(self.norm(x), self.head.weight, wide=True)


def _block(config: ImageARConfig, grid: tuple[int, int], key: PRNGKeyArray) -> TransformerBlock:
    attention_key, mlp_key = jr.split(key)
    dim, options = config.dim, {"bias": False, "dropout": config.dropout, "init": _normal}
    rope = AxialRoPE(dim // config.heads, grid, base=config.rope_base, prefix=1, blank_prefix=config.blank_prefix)
    return TransformerBlock(
        SelfAttention(dim, config.heads, causal=True, rope=rope, probs_dropout=0.0, **options, key=attention_key),
        GLU(dim, config.hidden_dim, **options, key=mlp_key),
        attention_norm=RMSNorm(dim, epsilon=config.epsilon),
        mlp_norm=RMSNorm(dim, epsilon=config.epsilon),
    )
