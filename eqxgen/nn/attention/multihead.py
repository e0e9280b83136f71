"""Equinox's multi-head attention, computed by the fused op."""

import equinox as eqx
from einops import rearrange
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen import ops
from eqxgen.nn import _check
from eqxgen.nn.attention.self_attention import Mask, join_heads


class MultiheadAttention(eqx.nn.MultiheadAttention):
    """`equinox.nn.MultiheadAttention`, constructor, parameters and call, with memory linear in the length.

    A model changes one import and loads its weights. The constructor has Equinox's arguments for that reason.

    Differences: a mask may also be an expression of `eqxgen.ops.masks`; a fully masked query gives the output of zeros,
    not of the mean; the same key drops other weights; the result has the query's dtype; a missing key is a ValueError.
    """

    def __init__(
        self,
        num_heads: int,
        query_size: int,
        key_size: int | None = None,
        value_size: int | None = None,
        output_size: int | None = None,
        qk_size: int | None = None,
        vo_size: int | None = None,
        use_query_bias: bool = False,
        use_key_bias: bool = False,
        use_value_bias: bool = False,
        use_output_bias: bool = False,
        dropout_p: float = 0.0,
        inference: bool = False,
        dtype=None,
        *,
        key: PRNGKeyArray,
    ):
        _check.positive(num_heads=num_heads, query_size=query_size)
        _check.rate(dropout_p=dropout_p)
        head = query_size // num_heads
        key_size, value_size, output_size = (
            query_size if size is None else size for size in (key_size, value_size, output_size)
        )
        qk_size, vo_size = (head if size is None else size for size in (qk_size, vo_size))
        _check.positive(
            key_size=key_size, value_size=value_size, output_size=output_size, qk_size=qk_size, vo_size=vo_size
        )
        super().__init__(
            num_heads,
            query_size,
            key_size,
            value_size,
            output_size,
            qk_size,
            vo_size,
            use_query_bias,
            use_key_bias,
            use_value_bias,
            use_output_bias,
            dropout_p,
            inference,
            dtype,
            key=key,
        )

    def __call__(
        self,
        query: Float[Array, "q_seq q_size"],
        key_: Float[Array, "kv_seq k_size"],
        value: Float[Array, "kv_seq v_size"],
        mask: Mask | None = None,
        *,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
        deterministic: bool | None = None,
        process_heads=None,
    ) -> Float[Array, "q_seq o_size"]:
        """The call of Equinox's layer; `deterministic` is an older name of `inference`."""
        _check.example(query, "q_seq", name="query", query_size=self.query_size)
        _check.example(key_, "kv_seq", name="key_", key_size=self.key_size)
        _check.example(value, "kv_seq", name="value", value_size=self.value_size)
        inference = deterministic if inference is None else inference
        rate = 0.0 if (self.dropout.inference if inference is None else inference) else self.dropout.p
        if rate and key is None:
            raise ValueError("dropout needs key=... in training: pass one, or inference=True")
        if key_.shape[0] != value.shape[0]:
            raise ValueError(f"key_ and value must have the same length: got {key_.shape[0]} and {value.shape[0]}")
        heads = (_heads(self.query_proj, query, self.num_heads), _heads(self.key_proj, key_, self.num_heads))
        heads = (*heads, _heads(self.value_proj, value, self.num_heads))
        if process_heads is not None:
            shapes = [x.shape for x in heads]
            heads = process_heads(*heads)
            if [x.shape for x in heads] != shapes:
                raise ValueError(
                    f"process_heads must not change the shapes of the heads: got {[x.shape for x in heads]} for "
                    f"{shapes}"
                )
        y = ops.dot_product_attention(*heads, mask=mask, dropout_rate=rate, dropout_key=key if rate else None)
        return _linear(self.output_proj, join_heads(y))


def _linear(layer: eqx.nn.Linear, x: Array) -> Array:
    y = x @ layer.weight.T.astype(x.dtype)
    return y if layer.bias is None else y + layer.bias[None].astype(x.dtype)


def _heads(layer: eqx.nn.Linear, x: Array, heads: int) -> Array:
    return rearrange(_linear(layer, x), "seq (heads head_dim) -> seq heads head_dim", heads=heads)
