"""Visual autoregressive model: image tokens scale by scale, by class (Tian et al. 2024, VAR, arXiv:2404.02905).

The ids are those of a tokenizer with an `eqxgen.nn.MultiScaleVQ`. All ids of a scale are predicted at once from the sum
of the scales before it, reduced to the scale; the first scale from the class alone. Tokens see their own scale and
those before it. The class modulates every block by adaptive layer norm. The loss is `eqxgen.losses.image_ar`, the
sampler `eqxgen.decoding.scales`.

Differences: the blocks are DiT's, whose modulations start at zero, where the published ones start small; queries and
keys have RMS norms with a scale for each entry, where the published ones have length 1 and a temperature for each head;
the head starts at zero; there is no drop path.
"""

import functools
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Bool, DTypeLike, Float, Int, PRNGKeyArray, PyTree

from eqxgen.configs import VARConfig
from eqxgen.nn import AdaLN, Embedding, MultiScaleVQ, Projection, Stack, Timeformer, _check
from eqxgen.nn.linear import check_ids, times_rows

_normal = jax.nn.initializers.normal(0.02)


class Memory(eqx.Module):
    """Memory of the class and the scales so far.

    Attributes:
        blocks: caches of the attentions.
        condition: the class.
        total: sum of the maps so far.
        scale: number of scales so far, the one that is predicted next included.
    """

    blocks: PyTree
    condition: Float[Array, " dim"]
    total: Float[Array, "rows columns code_dim"]
    scale: int = eqx.field(static=True)


class VAR(eqx.Module):
    """Logits of every token of one image, each from the class and the scales before its own.

    Args:
        scales: sides of the token maps.
        codes: size of the tokenizer's codebook.
        code_dim: width of its vectors.
        classes: number of labels.
        config: the sizes.

    Raises:
        ValueError: the scales do not increase from at least 1.
    """

    labels: Embedding
    start_positions: Float[Array, "first dim"]
    positions: Float[Array, "tokens dim"]
    level_positions: Float[Array, "scales dim"]
    embedding: Projection
    stack: Any
    norm: AdaLN
    head: Projection
    quantizer: MultiScaleVQ | None
    scales: tuple[int, ...] = eqx.field(static=True)
    classes: int = eqx.field(static=True)
    null: bool = eqx.field(static=True)

    def __init__(
        self,
        scales: Sequence[int],
        codes: int,
        code_dim: int,
        classes: int,
        config: VARConfig,
        *,
        key: PRNGKeyArray,
    ):
        _check.positive(codes=codes, code_dim=code_dim, classes=classes)
        self.scales = _check.increasing("scales", scales)
        keys, dim = jr.split(key, 8), config.dim
        table = lambda key, rows: _normal(key, (rows, dim), jnp.float32)
        self.labels = Embedding(classes + config.null, dim, init=_normal, key=keys[0])
        self.start_positions = table(keys[1], self.scales[0] ** 2)
        self.positions = table(keys[2], self.tokens)
        self.level_positions = table(keys[3], len(self.scales))
        self.embedding = Projection(code_dim, dim, init=_normal, key=keys[4])
        block = functools.partial(_block, config)
        self.stack = Stack(block, config.depth, remat=config.remat, key=keys[5])
        self.norm = AdaLN(dim, epsilon=config.epsilon, key=keys[6])
        self.head = Projection(dim, codes, init=jax.nn.initializers.zeros, key=keys[7])
        self.quantizer, self.classes, self.null = None, classes, config.null

    @property
    def tokens(self) -> int:
        """Tokens of one image."""
        return sum(side * side for side in self.scales)

    @property
    def codes(self) -> int:
        """Number of codes; ids are in [0, codes)."""
        return self.head.out_dim

    @property
    def null_label(self) -> int | None:
        """Label of an example without one; None with `config.null=False`."""
        return self.classes if self.null else None

    def reading(self, quantizer: MultiScaleVQ) -> "VAR":
        """The model with its tokenizer's quantiser, which is no part of the model that is trained and stored.

        Raises:
            ValueError: the quantiser has other scales, or another number or width of codes.
        """
        for name, own in (("scales", self.scales), ("codes", self.codes), ("dim", self.embedding.in_dim)):
            if (found := getattr(quantizer, name)) != own:
                raise ValueError(f"quantizer must have {name}={own}: got {found}")
        return eqx.tree_at(lambda model: model.quantizer, self, quantizer, is_leaf=lambda leaf: leaf is None)

    def __call__(
        self,
        ids: _check.Ids,
        label: _check.Ids,
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> Float[Array, "tokens codes"]:
        """Logits, in float32 at least; the last scale is not read.

        Args:
            ids: codes in [0, codes), scale by scale: an array (tokens,) of integers, or a list.
            label: in [0, classes), or `null_label`.
            key: of dropout; needed in training, where there is any.
            inference: no dropout, if true.

        Raises:
            ValueError: an id or a label is no integer, of another shape, or out of range (under jit it gives NaN
                logits instead); or the model is not `reading` a quantiser.
        """
        ids = check_ids(ids, self.codes, "ids", "codes")
        _check.example(ids, name="ids", tokens=self.tokens)
        condition = self._label(label)
        maps = [each.reshape(-1, each.shape[-1]) for each in self._quantizer.inputs(ids)]
        x = jnp.concatenate([self._first(condition), *(self.embedding(each.astype(condition.dtype)) for each in maps)])
        spread = jnp.repeat(self.level_positions, np.square(self.scales), axis=0, total_repeat_length=self.tokens)
        x = x + (self.positions + spread).astype(x.dtype)
        return self._logits(self.stack(x, condition, mask=self._mask(), key=key, inference=inference), condition)

    def check_condition(self, label: _check.Ids) -> Int[Array, ""]:
        """The label as an array.

        Raises:
            ValueError: it is no integer, no scalar or out of range; inside a compiled program a label out of the range
                gives NaN logits instead.
        """
        return _check.label(label, self.classes, self.null)

    def start(self, label: _check.Ids, dtype: DTypeLike = jnp.float32) -> tuple[Float[Array, "first codes"], Memory]:
        """Logits of the first scale, and the memory of the class, with room for all scales."""
        condition = self._label(label)
        empty = Memory(self.stack.cache(self.tokens, dtype), condition, self._quantizer.empty(), 0)
        return self._extended(self._first(condition), empty)

    def extend(self, ids: _check.Ids, memory: Memory) -> tuple[Float[Array, "next codes"], Memory]:
        """Logits of the next scale, and the memory with the ids of the one before; without dropout.

        Raises:
            ValueError: an id is out of range (under jit the logits are NaN instead), the ids are not of the scale, or
                there is no scale after it.
        """
        scale = memory.scale - 1
        if scale + 1 == len(self.scales):
            raise ValueError(f"extend needs a scale after the given one: got the last of {len(self.scales)}")
        side, ids = self.scales[scale], check_ids(ids, self.codes, "ids", "codes")
        _check.example(ids, name="ids", tokens=side * side)
        total = self._quantizer.added(memory.total, ids.reshape(side, side), scale)
        found = self._quantizer.reduced(total, scale + 1)
        x = self.embedding(found.reshape(-1, found.shape[-1]).astype(memory.condition.dtype))
        return self._extended(x, eqx.tree_at(lambda memory: memory.total, memory, total))

    def unrolled(self) -> "VAR":
        """The model for decoding, see `Stack.unrolled`; it cannot be trained."""
        return eqx.tree_at(lambda model: model.stack, self, self.stack.unrolled())

    def _extended(self, x: Array, memory: Memory) -> tuple[Array, Memory]:
        scale = memory.scale
        before = sum(side * side for side in self.scales[:scale])
        x = x + (self.positions[before : before + len(x)] + self.level_positions[scale][None]).astype(x.dtype)
        x, blocks = self.stack.extend(x, memory.blocks, memory.condition)
        after = Memory(blocks, memory.condition, memory.total, scale + 1)
        return self._logits(x, memory.condition), after

    @property
    def _quantizer(self) -> MultiScaleVQ:
        if self.quantizer is None:
            raise ValueError("the model must read its tokenizer's quantiser: call model.reading(tokenizer.quantizer)")
        return self.quantizer

    def _mask(self) -> Bool[Array, "tokens tokens"]:
        """Causal by scales."""
        level = np.repeat(np.arange(len(self.scales)), np.square(self.scales))
        return jnp.asarray(level[:, None] >= level[None])

    def _label(self, label: _check.Ids) -> Array:
        return self.labels(self.check_condition(label))

    def _first(self, condition: Array) -> Array:
        return condition[None] + self.start_positions.astype(condition.dtype)

    def _logits(self, x: Array, condition: Array) -> Array:
        found = times_rows(self.norm(x, condition), self.head.weight, wide=True)
        bias = self.head.bias
        return found if bias is None else found + bias[None].astype(found.dtype)


def _block(config: VARConfig, key: PRNGKeyArray) -> Timeformer:
    return Timeformer(
        config.dim,
        config.heads,
        hidden_dim=config.hidden_dim,
        dropout=config.dropout,
        epsilon=config.epsilon,
        qk_norm=config.qk_norm,
        init=_normal,
        key=key,
    )
