"""Masks of packed documents and of padded sequences."""

from typing import Any, ClassVar

import numpy as np

from .base import Mask
from .fields import check_lengths, integers, pytree


@pytree(arrays=("q_ids", "kv_ids"))
class Segments(Mask):
    """Query i sees key j where their segment ids are equal: several documents packed into one row.

    `q_ids` is `(*batch, q_seq)`; `kv_ids`, `(*batch, kv_seq)`, defaults to `q_ids`.
    """

    q_ids: Any
    kv_ids: Any = None
    axes: ClassVar[tuple[str, ...]] = ("bq", "bk")

    def __post_init__(self):
        object.__setattr__(self, "q_ids", integers("Segments' q_ids", self.q_ids))
        object.__setattr__(
            self, "kv_ids", self.q_ids if self.kv_ids is None else integers("Segments' kv_ids", self.kv_ids)
        )

    def arrays(self):
        return self.q_ids, self.kv_ids

    def replace(self, arrays):
        return Segments(*arrays)

    def check(self, q_seq, kv_seq):
        for name, ids, seq, axis in (("q_ids", self.q_ids, q_seq, "query"), ("kv_ids", self.kv_ids, kv_seq, "key")):
            shape = np.shape(ids)
            if not shape or shape[-1] != seq:
                raise ValueError(
                    f"masks.Segments: {name} must have one id per {axis}: got shape {shape} for {seq} positions"
                )
        return self

    def allowed(self, i, j, q_ids, kv_ids):
        return q_ids == kv_ids

    def block_bounds(self, i0, i1, j0, j1, q_ids, kv_ids):
        (q_low, q_high), (k_low, k_high) = q_ids, kv_ids
        return (q_low <= k_high) & (k_low <= q_high), (q_low == q_high) & (k_low == k_high) & (q_low == k_low)


@pytree(arrays=("query", "key_value"))
class Lengths(Mask):
    """The first `query` queries see the first `key_value` keys. Each is an int, an array over the batch, or None for
    all.
    """

    query: Any = None
    key_value: Any = None
    axes: ClassVar[tuple[str, ...]] = ("b", "b")

    def __post_init__(self):
        for name in ("query", "key_value"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, integers(f"Lengths' {name}", value))

    def arrays(self):
        return self.query, self.key_value

    def replace(self, arrays):
        return Lengths(*arrays)

    def check(self, q_seq, kv_seq):
        query = q_seq if self.query is None else self.query
        key_value = kv_seq if self.key_value is None else self.key_value
        check_lengths("query_seq_lengths", query, q_seq, "query")
        check_lengths("key_value_seq_lengths", key_value, kv_seq, "key")
        return Lengths(query, key_value)

    def allowed(self, i, j, query, key_value):
        return (i < query) & (j < key_value)

    def block_bounds(self, i0, i1, j0, j1, query, key_value):
        return (i0 < query[1]) & (j0 < key_value[1]), (i1 < query[0]) & (j1 < key_value[0])
