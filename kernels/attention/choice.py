"""Order of the implementations for NVIDIA GPUs: measured ones from `choice.json`, and a rule for all other calls.

`bench/gpu/tune_attention.py` measures them. The file is a list of objects with exactly the fields of `Row`.
"""

import dataclasses
import functools
import json
import pathlib
from typing import Any

import jax.numpy as jnp

from .. import _cuda, masks
from .._blocks import power
from ..masks.base import parts
from .mosaic_gpu.support import HOPPER_NAMES
from .mosaic_gpu.tiling import shares_registers
from .problem import Extras

FILE = pathlib.Path(__file__).with_name("choice.json")
NAMES = ("mosaic_gpu", "triton", "cudnn", "xla")
# A length belongs to the first class that holds it.
LENGTHS = (512, 2048, 8192, 1 << 31)
MASKS = ("none", "causal", "window", "packed", "bias", "other")
DIRECTIONS = ("forward", "backward")
# The widest head_dim of the Hopper kernels that fits the registers which a warpgroup has by itself.
FITTING = 128


@dataclasses.dataclass(frozen=True)
class Row:
    """The measured order of one class of calls: `length` is the end of its class, `order` has the fastest first."""

    device: str
    dtype: str
    head_dim: int
    length: int
    mask: str
    direction: str
    order: tuple[str, ...]

    @property
    def key(self) -> tuple:
        return (self.device, self.dtype, self.head_dim, self.length, self.mask, self.direction)


def order(device: str | None, q, k, extras: Extras, direction: str) -> tuple[str, ...]:
    """The names to try, best first, for a call on a device of this kind, or on an unknown one."""
    if device is None:
        # cuDNN's support depends on the device, so it comes last without one.
        return ("mosaic_gpu", "triton", "xla", "cudnn")
    row = table().get(
        (
            device,
            q.dtype.name,
            head_dim_class(q.shape[-1]),
            length_class(max(q.shape[1], k.shape[1])),
            kind(extras),
            direction,
        )
    )
    return row.order if row else rule(device, q.dtype, kind(extras), max(q.shape[-1], k.shape[-1]))


def rule(device: str, dtype: Any, mask: str, head_dim: int) -> tuple[str, ...]:
    """The order of calls that were not measured.

    On Hopper cuDNN comes before Triton for no mask or a causal one: published forward passes put Triton at about 0.56
    of its speed. With a bias, and on older GPUs, Triton comes first. The Hopper kernels come first of all if the
    compiler gives them their registers; if not, cuDNN comes before them, and Triton too for heads so wide that they
    spill.
    """
    hopper = any(name in device for name in HOPPER_NAMES)
    dense = hopper and dtype in (jnp.bfloat16, jnp.float16) and mask in ("none", "causal")
    if shares_registers():
        return ("mosaic_gpu", "cudnn", "triton", "xla") if dense else NAMES
    ours = ("triton", "mosaic_gpu") if head_dim > FITTING else ("mosaic_gpu", "triton")
    return ("cudnn", *ours, "xla") if dense else (*ours, "cudnn", "xla")


def kind(extras: Extras) -> str:
    """The class of a call's mask and bias."""
    if extras.bias is not None:
        return "bias"
    found = list(parts(extras.mask))
    if any(isinstance(part, masks.Segments) for part in found):
        return "packed"
    if any(isinstance(part, masks.Window) for part in found):
        return "window"
    if found and all(isinstance(part, masks.Causal) for part in found):
        return "causal"
    return "other" if found else "none"


def head_dim_class(dim: int) -> int:
    """The power of two at or above a head_dim, at least 16."""
    return max(16, power(dim))


def length_class(length: int) -> int:
    """The end of the class that holds a length."""
    return next(end for end in LENGTHS if length <= end)


def device() -> str | None:
    """The kind of this process' GPU, or None."""
    found = _cuda.device()
    return None if found is None else found.device_kind


@functools.cache
def table(path: pathlib.Path = FILE) -> dict[tuple, Row]:
    """The measured rows by key."""
    return {row.key: row for row in read(path.read_text(encoding="utf-8"))}


def read(text: str) -> list[Row]:
    """The rows of a file; a `ValueError` names the constraint on a row and its value."""
    rows = json.loads(text)
    if not isinstance(rows, list):
        raise ValueError(
            f"choice.json must be a list of rows: got {type(rows).__name__}; write it with bench/gpu/tune_attention.py"
        )
    return [_row(x) for x in rows]


def _row(x: Any) -> Row:
    fields = {field.name for field in dataclasses.fields(Row)}
    if not isinstance(x, dict) or set(x) != fields:
        raise ValueError(
            f"a row of choice.json must have the fields {sorted(fields)}: got "
            f"{sorted(x) if isinstance(x, dict) else x!r}"
        )
    allowed = {"head_dim": None, "device": None, "dtype": ("float32", "bfloat16", "float16")}
    allowed |= {"length": LENGTHS, "mask": MASKS, "direction": DIRECTIONS}
    for name, choices in allowed.items():
        kind = int if name in ("head_dim", "length") else str
        if type(x[name]) is not kind or (choices and x[name] not in choices):
            raise ValueError(
                f"choice.json: {name} must be {f'one of {choices}' if choices else f'of type {kind.__name__}'}: got "
                f"{x[name]!r}"
            )
    if not isinstance(x["order"], list) or sorted(map(str, x["order"])) != sorted(NAMES):
        raise ValueError(f"choice.json: order must hold each of {NAMES} once: got {x['order']!r}")
    values: dict[str, Any] = x | {"order": tuple(x["order"])}
    return Row(**values)


def write(rows: list[Row], path: pathlib.Path = FILE) -> None:
    """Write rows for `read`, sorted by key, one to a line."""
    lines = [json.dumps(dataclasses.asdict(row)) for row in sorted(rows, key=lambda row: row.key)]
    path.write_text("[" + ",\n ".join(lines) + "]\n", encoding="utf-8")
