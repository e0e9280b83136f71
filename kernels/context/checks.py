"""Argument validation of a call inside `jax.shard_map`, and masks and biases bound to it."""

import logging
from typing import Any

import jax

from .. import masks
from ..attention import checks
from ..attention.problem import Extras
from ..masks.base import And, Or
from .geometry import Geometry
from .order import chunks_of
from .traffic import METHODS, sent

log = logging.getLogger("eqxgen.kernels")
OP = "context_attention"


def geometry(axis_name: Any, order: str, q_seq: int, kv_seq: int) -> Geometry:
    """The geometry of a call; a `ValueError` outside `jax.shard_map`, or if the lengths do not fit the order."""
    chunks = chunks_of(order)
    names = (axis_name,) if isinstance(axis_name, str) else tuple(axis_name or ())
    mesh = jax.sharding.get_abstract_mesh()
    here = tuple(mesh.manual_axes)
    if not names or any(name not in here for name in names):
        found = f"the manual axes {here}" if here else "no manual axes"
        raise ValueError(
            f"{OP}: axis_name must be a manual mesh axis: got {axis_name!r} with {found}; call it inside jax.shard_map "
            "over that axis"
        )
    for side, seq in (("query", q_seq), ("key", kv_seq)):
        if seq % chunks:
            raise ValueError(
                f"{OP}: order='zigzag' needs an even number of tokens on each device: got {side} length {seq}"
            )
    return Geometry(names[0] if len(names) == 1 else names, jax.lax.axis_size(names), chunks)


def method(name: str | None, q, k, v, extras: Extras, devices: int) -> str:
    """The method's name: the one asked for, or the one that sends less."""
    if name is not None and name not in METHODS:
        raise ValueError(f"{OP}: method must be None or one of {METHODS}: got {name!r}")
    divides = q.shape[2] % devices == 0
    if name == "all_to_all" and not divides:
        raise ValueError(
            f"{OP}: method='all_to_all' needs a number of devices that divides the query heads: got {q.shape[2]} heads "
            f"and {devices} devices; use method='ring'"
        )
    if name is not None:
        return name
    costs = sent(q, k, v, extras, devices)
    chosen = "all_to_all" if divides and costs["all_to_all"] < costs["ring"] else "ring"
    log.debug("%s runs as %s: bytes sent by a device are %s", OP, chosen, costs)
    return chosen


def bound(
    bias: Any, mask: masks.Mask | None, batch: tuple[int, ...], heads: int, q_seq: int, kv_seq: int, devices: int
):
    """`(bias, mask)` with every array in the axes that its class names; the lengths are those of one device."""
    total = devices * q_seq, devices * kv_seq

    def bind(part: masks.Mask) -> masks.Mask:
        if isinstance(part, (And, Or)):
            return type(part)(bind(part.left), bind(part.right))
        letters = ["".join(sorted(set(axes) & set("qk"))) for axes in part.axes]
        q, k = total
        if any("q" in found for found in letters):
            q = q_seq
        if "k" in letters:
            k = kv_seq
        return checks.bound_mask(part, batch, heads, q, k)

    return checks.bound_bias(bias, batch, heads, q_seq, total[1]), None if mask is None else bind(mask)
