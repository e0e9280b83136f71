"""Attention masks as small pytrees: they cost no memory, skip whole blocks, and join with `&` and `|`.

A leaf mask is one class with four members: its arrays, named by the axes they run over (`axes`), whether the pair (query i, key j) is
allowed (`allowed`), what a rectangle of pairs holds (`touch`), and whether its arrays fit the problem (`check`). Axes are spelled with
`b` (batch), `h` (heads), `q` (queries) and `k` (keys); every array may have size 1 along `b` and `h`. Backends hand a mask its own arrays
cut to the tile at hand, so a mask holds no loop and knows no backend.

Plain Python integers are part of the traced program; pass an array for a number that changes from call to call.
"""

import dataclasses
import functools
import typing
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

Touch = tuple[Any, Any]


class Mask:
    """A set of allowed (query, key) pairs."""

    axes: ClassVar[tuple[str, ...]] = ()

    def __and__(self, other: "Mask") -> "Mask":
        return And(self, as_mask(other))

    def __or__(self, other: "Mask") -> "Mask":
        return Or(self, as_mask(other))

    def __rand__(self, other) -> "Mask":
        return And(as_mask(other), self)

    def __ror__(self, other) -> "Mask":
        return Or(as_mask(other), self)

    def arrays(self) -> tuple[Any, ...]:
        """The arrays, in the order of `axes`."""
        return ()

    def replace(self, arrays: tuple[Any, ...]) -> "Mask":
        """The same mask with other arrays."""
        return self

    def check(self, q_seq: int, kv_seq: int) -> "Mask":
        """This mask for a problem of these lengths; a `ValueError` if it cannot be."""
        return self

    def allowed(self, *args: Any, **kwargs: Any) -> Any:
        """`allowed(i, j, *arrays)`, elementwise: may query `i` see key `j`? The arrays come cut to the tile and broadcast against both."""
        raise NotImplementedError

    def touch(self, *args: Any, **kwargs: Any) -> Touch:
        """`touch(i0, i1, j0, j1, *spans)` is `(some, every)` for the rectangle of queries `i0..i1` and keys `j0..j1`, both ends included.

        `some` may be False only where no pair is allowed, and `every` True only where all are. Each array comes as the pair of its least
        and greatest value over the rectangle.
        """
        raise NotImplementedError


@typing.dataclass_transform(frozen_default=True, eq_default=False)
def _mask(*, arrays: tuple[str, ...] = (), static: tuple[str, ...] = ()):
    """Make a frozen dataclass a pytree. A field in `arrays` that holds a Python int or None stays part of the program."""

    def wrap(cls):
        cls = dataclasses.dataclass(frozen=True, eq=False)(cls)

        def is_static(value) -> bool:
            return value is None or isinstance(value, int)

        def flatten(mask):
            values = [getattr(mask, name) for name in arrays]
            fixed = tuple(value if is_static(value) else _LEAF for value in values)
            return [value for value in values if not is_static(value)], (fixed, tuple(getattr(mask, name) for name in static))

        def unflatten(aux, children):
            fixed, rest = aux
            children = iter(children)
            mask = object.__new__(cls)
            for name, value in zip(arrays, fixed):
                object.__setattr__(mask, name, next(children) if value is _LEAF else value)
            for name, value in zip(static, rest):
                object.__setattr__(mask, name, value)
            return mask

        jax.tree_util.register_pytree_node(cls, flatten, unflatten)
        return cls

    return wrap


class _Leaf:
    """Stands in a tree's structure where a field is an array."""

    def __repr__(self) -> str:
        return "array"


_LEAF = _Leaf()


def _integers(name: str, value: Any) -> Any:
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return int(value)
    value = value if hasattr(value, "dtype") else np.asarray(value)
    if not jnp.issubdtype(value.dtype, jnp.integer):
        raise TypeError(f"masks: {name} must be integers: got {value.dtype}")
    return value


def _known(value) -> np.ndarray | None:
    """The values, where they are known while tracing."""
    return None if isinstance(value, Tracer) else np.asarray(value)


@_mask(arrays=("offset",))
class Causal(Mask):
    """Query i sees keys 0 to i + offset.

    `offset` is an int, or an array that broadcasts to the batch: with a cache that held `n` keys before these queries, `Causal(n)`.
    """

    offset: Any = 0
    axes: ClassVar[tuple[str, ...]] = ("b",)

    def __post_init__(self):
        object.__setattr__(self, "offset", _integers("Causal's offset", self.offset))

    def arrays(self):
        return (self.offset,)

    def replace(self, arrays):
        return Causal(*arrays)

    def allowed(self, i, j, offset):
        return j <= i + offset

    def touch(self, i0, i1, j0, j1, offset):
        low, high = offset
        return j0 <= i1 + high, j1 <= i0 + low


@_mask(static=("left", "right"))
class Window(Mask):
    """Query i sees keys i - left to i + right. Each is an int; None leaves that side open."""

    left: Any
    right: Any

    def __post_init__(self):
        for side in ("left", "right"):
            value = getattr(self, side)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
                raise TypeError(f"masks.Window: {side} must be an int or None: got {value!r}")
            if value < 0:
                raise ValueError(f"masks.Window: {side} must not be negative: got {side}={value}; use None for an open side")
            object.__setattr__(self, side, int(value))

    def allowed(self, i, j):
        seen = None
        if self.left is not None:
            seen = j >= i - self.left
        if self.right is not None:
            right = j <= i + self.right
            seen = right if seen is None else seen & right
        return (i == i) & (j == j) if seen is None else seen

    def touch(self, i0, i1, j0, j1):
        some = every = (i0 == i0) & (j0 == j0)
        if self.left is not None:
            some, every = some & (j1 >= i0 - self.left), every & (j0 >= i1 - self.left)
        if self.right is not None:
            some, every = some & (j0 <= i1 + self.right), every & (j1 <= i0 + self.right)
        return some, every


@_mask(arrays=("length",))
class PrefixLM(Mask):
    """Every query sees keys 0 to length - 1, and query i sees keys 0 to i. `length` is an int or an array over the batch."""

    length: Any
    axes: ClassVar[tuple[str, ...]] = ("b",)

    def __post_init__(self):
        object.__setattr__(self, "length", _integers("PrefixLM's length", self.length))

    def arrays(self):
        return (self.length,)

    def replace(self, arrays):
        return PrefixLM(*arrays)

    def check(self, q_seq, kv_seq):
        _check_lengths("PrefixLM: length", self.length, kv_seq, "key")
        return self

    def allowed(self, i, j, length):
        return (j <= i) | (j < length)

    def touch(self, i0, i1, j0, j1, length):
        low, high = length
        return (j0 <= i1) | (j0 < high), (j1 <= i0) | (j1 < low)


@_mask(arrays=("q_ids", "kv_ids"))
class Segments(Mask):
    """Query i sees key j where their segment ids are equal: several documents packed into one row.

    `q_ids` is `(*batch, q_seq)`; `kv_ids`, `(*batch, kv_seq)`, is the same when left out.
    """

    q_ids: Any
    kv_ids: Any = None
    axes: ClassVar[tuple[str, ...]] = ("bq", "bk")

    def __post_init__(self):
        object.__setattr__(self, "q_ids", _integers("Segments' q_ids", self.q_ids))
        object.__setattr__(self, "kv_ids", self.q_ids if self.kv_ids is None else _integers("Segments' kv_ids", self.kv_ids))

    def arrays(self):
        return self.q_ids, self.kv_ids

    def replace(self, arrays):
        return Segments(*arrays)

    def check(self, q_seq, kv_seq):
        for name, ids, seq, axis in (("q_ids", self.q_ids, q_seq, "query"), ("kv_ids", self.kv_ids, kv_seq, "key")):
            shape = np.shape(ids)
            if not shape or shape[-1] != seq:
                raise ValueError(f"masks.Segments: {name} must have one id per {axis}: got shape {shape} for {seq} positions")
        return self

    def allowed(self, i, j, q_ids, kv_ids):
        return q_ids == kv_ids

    def touch(self, i0, i1, j0, j1, q_ids, kv_ids):
        (q_low, q_high), (k_low, k_high) = q_ids, kv_ids
        return (q_low <= k_high) & (k_low <= q_high), (q_low == q_high) & (k_low == k_high) & (q_low == k_low)


@_mask(arrays=("query", "key_value"))
class Lengths(Mask):
    """The first `query` queries see the first `key_value` keys. Each is an int, an array over the batch, or None for all."""

    query: Any = None
    key_value: Any = None
    axes: ClassVar[tuple[str, ...]] = ("b", "b")

    def __post_init__(self):
        for name in ("query", "key_value"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _integers(f"Lengths' {name}", value))

    def arrays(self):
        return self.query, self.key_value

    def replace(self, arrays):
        return Lengths(*arrays)

    def check(self, q_seq, kv_seq):
        query = q_seq if self.query is None else self.query
        key_value = kv_seq if self.key_value is None else self.key_value
        _check_lengths("query_seq_lengths", query, q_seq, "query")
        _check_lengths("key_value_seq_lengths", key_value, kv_seq, "key")
        return Lengths(query, key_value)

    def allowed(self, i, j, query, key_value):
        return (i < query) & (j < key_value)

    def touch(self, i0, i1, j0, j1, query, key_value):
        return (i0 < query[1]) & (j0 < key_value[1]), (i1 < query[0]) & (j1 < key_value[0])


class _Pattern:
    """A boolean matrix that is part of the program: hashed and compared by value."""

    def __init__(self, matrix: np.ndarray):
        self.matrix = matrix
        self._key = (matrix.shape, matrix.tobytes())

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other) -> bool:
        return isinstance(other, _Pattern) and self._key == other._key

    def __repr__(self) -> str:
        return f"pattern{self.matrix.shape}"


@_mask(static=("pattern", "block"))
class BlockSparse(Mask):
    """Query i sees key j where `pattern[i // block, j // block]` holds. `pattern` is a boolean matrix known while tracing."""

    pattern: Any
    block: int

    def __post_init__(self):
        if isinstance(self.pattern, _Pattern):
            return
        if isinstance(self.pattern, Tracer):
            raise TypeError("masks.BlockSparse: pattern must be known while tracing: use masks.Dense for a mask that is computed")
        matrix = np.asarray(self.pattern)
        if matrix.dtype != bool:
            raise TypeError(f"masks.BlockSparse: pattern must be boolean: got {matrix.dtype}")
        if matrix.ndim != 2:
            raise ValueError(f"masks.BlockSparse: pattern must have two axes, query blocks and key blocks: got shape {matrix.shape}")
        if isinstance(self.block, bool) or not isinstance(self.block, (int, np.integer)) or self.block < 1:
            raise ValueError(f"masks.BlockSparse: block must be a positive int: got {self.block!r}")
        object.__setattr__(self, "pattern", _Pattern(matrix))
        object.__setattr__(self, "block", int(self.block))

    @classmethod
    def strided(cls, blocks: int, *, block: int, stride: int, local: int = 1) -> "BlockSparse":
        """Each block sees the last `local` blocks up to itself and every `stride`-th before them (Child et al. 2019, causal)."""
        if stride < 1 or local < 1:
            raise ValueError(f"masks.BlockSparse.strided: stride and local must be positive: got stride={stride}, local={local}")
        i, j = np.indices((blocks, blocks))
        return cls((j <= i) & ((i - j < local) | (j % stride == stride - 1)), block)

    @classmethod
    def local_global(cls, blocks: int, *, block: int, local: int = 1, global_blocks: int = 1) -> "BlockSparse":
        """Each block sees `local` neighbours on each side, and all see and are seen by the first `global_blocks` (Longformer)."""
        if local < 0 or global_blocks < 0:
            raise ValueError(
                f"masks.BlockSparse.local_global: counts must not be negative: got local={local}, global_blocks={global_blocks}"
            )
        i, j = np.indices((blocks, blocks))
        return cls((abs(i - j) <= local) | (i < global_blocks) | (j < global_blocks), block)

    def check(self, q_seq, kv_seq):
        rows, columns = self.pattern.matrix.shape
        if rows != -(-q_seq // self.block) or columns != -(-kv_seq // self.block):
            raise ValueError(
                f"masks.BlockSparse: pattern must have one row and column per block: got shape {(rows, columns)} "
                f"for {q_seq} queries and {kv_seq} keys in blocks of {self.block}"
            )
        return self

    def allowed(self, i, j):
        rows, columns = self.pattern.matrix.shape
        return jnp.asarray(self.pattern.matrix)[jnp.minimum(i // self.block, rows - 1), jnp.minimum(j // self.block, columns - 1)]

    def touch(self, i0, i1, j0, j1):
        # A summed-area table answers for any rectangle in four look-ups.
        rows, columns = self.pattern.matrix.shape
        table = np.zeros((rows + 1, columns + 1), np.int32)
        table[1:, 1:] = self.pattern.matrix.cumsum(0).cumsum(1)
        numpy = all(isinstance(x, (int, np.integer, np.ndarray)) for x in (i0, i1, j0, j1))
        lib, area = (np, table) if numpy else (jnp, jnp.asarray(table))
        r0, r1 = lib.minimum(i0 // self.block, rows - 1), lib.minimum(i1 // self.block, rows - 1) + 1
        c0, c1 = lib.minimum(j0 // self.block, columns - 1), lib.minimum(j1 // self.block, columns - 1) + 1
        count = area[r1, c1] - area[r0, c1] - area[r1, c0] + area[r0, c0]
        return count > 0, count == (r1 - r0) * (c1 - c0)


@_mask(arrays=("array",))
class Dense(Mask):
    """Any boolean array that broadcasts to `(*batch, heads, q_seq, kv_seq)`; it costs the memory it holds."""

    array: Any
    axes: ClassVar[tuple[str, ...]] = ("bhqk",)

    def __post_init__(self):
        if not hasattr(self.array, "dtype"):
            object.__setattr__(self, "array", np.asarray(self.array))
        if self.array.dtype != bool:
            raise TypeError(f"mask must be boolean, True where a key is seen: got {self.array.dtype}; pass a number to add as `bias`")

    def arrays(self):
        return (self.array,)

    def replace(self, arrays):
        return Dense(*arrays)

    def check(self, q_seq, kv_seq):
        shape = (1, 1, *np.shape(self.array))[-2:]
        if shape[0] not in (1, q_seq) or shape[1] not in (1, kv_seq):
            raise ValueError(f"mask must broadcast to (..., q_seq, kv_seq) = (..., {q_seq}, {kv_seq}): got shape {np.shape(self.array)}")
        return self

    def allowed(self, i, j, array):
        return array != 0

    def touch(self, i0, i1, j0, j1, array):
        low, high = array
        return high != 0, low != 0


@dataclasses.dataclass(frozen=True, eq=False)
class _Joint(Mask):
    left: Mask
    right: Mask

    @property
    def axes(self):  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.left.axes + self.right.axes

    def arrays(self):
        return self.left.arrays() + self.right.arrays()

    def replace(self, arrays):
        cut = len(self.left.axes)
        return type(self)(self.left.replace(arrays[:cut]), self.right.replace(arrays[cut:]))

    def check(self, q_seq, kv_seq):
        return type(self)(self.left.check(q_seq, kv_seq), self.right.check(q_seq, kv_seq))

    def _both(self, method: str, where: tuple, arrays: tuple):
        cut = len(self.left.axes)
        return getattr(self.left, method)(*where, *arrays[:cut]), getattr(self.right, method)(*where, *arrays[cut:])


@functools.partial(jax.tree_util.register_dataclass, data_fields=("left", "right"), meta_fields=())
@dataclasses.dataclass(frozen=True, eq=False)
class And(_Joint):
    """Pairs that both masks allow."""

    def allowed(self, i, j, *arrays):
        left, right = self._both("allowed", (i, j), arrays)
        return left & right

    def touch(self, i0, i1, j0, j1, *spans):
        left, right = self._both("touch", (i0, i1, j0, j1), spans)
        return left[0] & right[0], left[1] & right[1]


@functools.partial(jax.tree_util.register_dataclass, data_fields=("left", "right"), meta_fields=())
@dataclasses.dataclass(frozen=True, eq=False)
class Or(_Joint):
    """Pairs that either mask allows."""

    def allowed(self, i, j, *arrays):
        left, right = self._both("allowed", (i, j), arrays)
        return left | right

    def touch(self, i0, i1, j0, j1, *spans):
        left, right = self._both("touch", (i0, i1, j0, j1), spans)
        return left[0] | right[0], left[1] | right[1]


def as_mask(value) -> Mask:
    """A mask as it is, or a boolean array as `Dense`."""
    return value if isinstance(value, Mask) else Dense(value)


def _check_lengths(name: str, lengths, seq: int, axis: str) -> None:
    known = _known(lengths)
    if known is None or not known.size:
        return
    if known.min() < 0 or known.max() > seq:
        raise ValueError(
            f"{name} must lie between 0 and the number of {axis} positions: got {known.min()} to {known.max()} for {seq} positions"
        )
