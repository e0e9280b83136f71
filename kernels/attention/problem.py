"""Attention in canonical form: what every backend receives."""

import dataclasses
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Setting:
    """The numbers that are part of the program."""

    scale: float
    soft_cap: float | None = None
    dropout_rate: float = 0.0


@dataclasses.dataclass(frozen=True)
class Extras:
    """What enters the logits beside query and key, and the seeds of dropout.

    `b` below is the batch or 1. `bias`: (b, h, q, k), each axis full or 1, or an `ALiBi` with slopes (b, h) and offset
        (b,), or None.
    `mask`: a `Mask` bound to the problem, so that its arrays have the axes its class names, or None. `seeds`: (b,
        heads, 2) int32, or None
    without dropout.
    """

    bias: Any = None
    mask: Any = None
    seeds: Any = None


jax.tree_util.register_dataclass(Extras, data_fields=("bias", "mask", "seeds"), meta_fields=())


def accumulator(dtype) -> Any:
    """The dtype of statistics and sums: float32, or float64 for float64."""
    return jax.numpy.promote_types(dtype, jax.numpy.float32)


def unsqueeze(x, axes: str, order: str = "bhqk") -> Any:
    """An array with `axes` (some of `order`) as one that broadcasts against all of `order`. A plain integer stays as it
    is.
    """
    if isinstance(x, int):
        return x
    return x.reshape(tuple(x.shape[axes.index(a)] if a in axes else 1 for a in order))
