"""Masks as integers for a kernel, in conjunctive normal form: clauses that must all hold, each of terms of which one
must.

A term is seven static integers: 1 if it ends its clause, its kind, and up to five arguments, among them the offsets of
its arrays in `table` or `dense`. `scores.allowed` evaluates them.
"""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp

from ...masks import And, BlockSparse, Causal, Dense, Lengths, Mask, Neighborhood, Or, PrefixLM, Segments, Window
from ..problem import unsqueeze

UPPER, LOWER, KEY_BELOW, QUERY_BELOW, SAME, PATTERN, DENSE = range(7)
MOST_TERMS = 24

Clauses = list[list[tuple[int, ...]]]


@dataclasses.dataclass(frozen=True)
class Terms:
    """`code` as in the module's docstring; `table` holds int32 numbers and `dense` int8 masks, each flat and with at
    least one element.
    """

    code: tuple[int, ...]
    table: Any
    dense: Any


def refusal(mask: Mask | None) -> str | None:
    """The reason why a mask cannot be written in terms, or None."""
    if mask is None:
        return None
    kind = _foreign(mask)
    if kind is not None:
        return f"it supports the masks of kernels.masks: got {kind.__name__}"
    count = sum(map(len, _Writer().clauses(mask)))
    if count > MOST_TERMS:
        return f"its masks have at most {MOST_TERMS} terms when written as clauses of alternatives: got {count}"
    return None


def terms_of(mask: Mask | None) -> Terms:
    """The terms of a mask that `refusal` accepts."""
    writer = _Writer()
    clauses = writer.clauses(mask) if mask is not None else []
    code = tuple(x for clause in clauses for n, term in enumerate(clause) for x in (int(n == len(clause) - 1), *term))
    return Terms(code, _joined(writer.table, jnp.int32), _joined(writer.dense, jnp.int8))


def in_one_run(mask: Mask | None) -> bool:
    """True if the active blocks of each row are known to be one run, and so its full blocks."""
    if isinstance(mask, And):
        return in_one_run(mask.left) and in_one_run(mask.right)
    return mask is None or isinstance(mask, (Causal, Window, PrefixLM, Lengths))


def _foreign(mask: Mask) -> type | None:
    if isinstance(mask, (And, Or)):
        return _foreign(mask.left) or _foreign(mask.right)
    return (
        None
        if isinstance(mask, (BlockSparse, Causal, Dense, Lengths, Neighborhood, PrefixLM, Segments, Window))
        else type(mask)
    )


def _joined(arrays: list[Any], dtype) -> Any:
    return jnp.concatenate([jnp.asarray(x, dtype).reshape(-1) for x in arrays]) if arrays else jnp.zeros(1, dtype)


class _Writer:
    """Writes the terms of a mask, and its arrays into `table` and `dense`."""

    def __init__(self):
        self.table: list[Any] = []
        self.dense: list[Any] = []

    def clauses(self, mask: Any) -> Clauses:
        """The clauses that all hold for exactly the allowed pairs."""
        match mask:
            case And():
                return self.clauses(mask.left) + self.clauses(mask.right)
            case Or():
                right = self.clauses(mask.right)
                return [a + b for a in self.clauses(mask.left) for b in right]
            case Causal():
                return [[_term(UPPER, *self._number(mask.offset))]]
            case Window():
                left = [] if mask.left is None else [[_term(LOWER, mask.left)]]
                right = [] if mask.right is None else [[_term(UPPER, mask.right, -1)]]
                # Open on both sides it allows everything: j >= i - 2^30.
                return left + right or [[_term(LOWER, 2**30)]]
            case PrefixLM():
                return [[_term(UPPER, 0, -1), _term(KEY_BELOW, *self._number(mask.length))]]
            case Lengths():
                return [
                    [_term(QUERY_BELOW, *self._number(mask.query))],
                    [_term(KEY_BELOW, *self._number(mask.key_value))],
                ]
            case Segments():
                return [[_term(SAME, *self._rows(mask.q_ids), *self._rows(mask.kv_ids))]]
            case BlockSparse():
                matrix = mask.pattern.matrix
                return [[_term(PATTERN, self._append(self.table, matrix), mask.block, matrix.shape[1])]]
            case Neighborhood():
                return [[self._plane(jnp.asarray(mask.matrix())[None, None])]]
            case Dense():
                return [[self._plane(unsqueeze(mask.array, "bhqk"))]]
        raise AssertionError(mask)

    def _append(self, where: list[Any], x: Any) -> int:
        """The offset of an array appended to a list."""
        where.append(x)
        return sum(math.prod(y.shape) for y in where[:-1])

    def _number(self, x: Any) -> tuple[int, int]:
        """A static number with stride -1, or the offset of an array over the batch and its stride."""
        return (x, -1) if isinstance(x, int) else (self._append(self.table, x), int(x.shape[0] > 1))

    def _rows(self, x: Any) -> tuple[int, int]:
        return self._append(self.table, x), x.shape[1] if x.shape[0] > 1 else 0

    def _plane(self, x: Any) -> tuple[int, ...]:
        return _term(DENSE, self._append(self.dense, x), *strides(x.shape))


def strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The strides of a contiguous array in elements, 0 along an axis of size 1."""
    steps, step = [], 1
    for size in reversed(shape):
        steps.append(step if size > 1 else 0)
        step *= size
    return tuple(reversed(steps))


def _term(*numbers: int) -> tuple[int, ...]:
    return (*numbers, *(0,) * (6 - len(numbers)))
