"""Measure the implementations of attention on the GPU at hand and write their order to kernels/attention/choice.json.

    python -m bench.tune_attention                   about 20 minutes; rows of other devices stay as they are
    python -m bench.tune_attention --minutes 9       the rows that come first, in that time

One shape stands for each class of device, dtype, head_dim, length and mask. A contender that is wrong against XLA's form is put last, and one
that cannot run after those that can. The file is written after each row, and the next program that is compiled follows it.
"""

import argparse
import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from bench.gpu_attention import draw, errors, masks_by_name, operands
from bench.gpu_race import Clock, jax_side, race, try_sides
from kernels import dot_product_attention
from kernels.attention import choice

TOKENS, WIDTH = 16384, 2048
# The length that stands for each class, most used first.
LENGTHS = {2048: 1024, 512: 256, 8192: 4096, choice.LENGTHS[-1]: 16384}
HEAD_DIMS = (64, 128, 32, 256)
DTYPES = ("bfloat16", "float16", "float32")
MASKS = ("none", "causal", "bias", "packed", "window")


def makers(name: str, arrays: list[jax.Array], extra: tuple, mask: Any, direction: str) -> Callable:
    """The maker of one implementation's contender."""
    q, k, v, dout = arrays
    attend = functools.partial(dot_product_attention, mask=mask, implementation=name)

    def make():
        if direction == "forward":
            return jax_side(attend, q, k, v, *extra)
        pull = jax.jit(lambda *x: jax.vjp(attend, *x)[1])(q, k, v, *extra)
        return jax_side(lambda pull, dout: pull(dout), pull, dout)

    return make


def is_right(name: str, arrays: list[jax.Array], extra: tuple, mask: Any) -> bool:
    """Whether the output and the gradients are XLA's, up to the dtype's rounding."""
    q, k, v, dout = arrays

    @functools.partial(jax.jit, static_argnums=0)
    def both(name, *x):
        out, pull = jax.vjp(functools.partial(dot_product_attention, mask=mask, implementation=name), *x)
        return out, *pull(dout)

    rounding = 8 * float(jnp.finfo(q.dtype).eps)
    return max(errors(both(name, q, k, v, *extra), both("xla", q, k, v, *extra))) < max(rounding, 1e-3)


def orders(times: dict[str, float], wrong: set[str]) -> tuple[str, ...]:
    """All names: the right ones that ran, fastest first; then those that did not run, in the rule's order; then the wrong ones."""
    ran = sorted((name for name in times if name not in wrong), key=lambda name: times[name])
    rest = [name for name in choice.NAMES if name not in times and name not in wrong]
    return (*ran, *rest, *(name for name in choice.NAMES if name in wrong))


def tune(clock: Clock, path: pathlib.Path, *, tiny: bool = False) -> list[choice.Row]:
    """The rows that were measured in time; `path` gets them as they come."""
    device = jax.devices()[0].device_kind
    rows = {row.key: row for row in choice.read(path.read_text(encoding="utf-8"))} if path.exists() else {}
    measured = []
    tokens, width = (64, 64) if tiny else (TOKENS, WIDTH)
    for dtype in DTYPES:
        for length, seq in LENGTHS.items():
            for dim in HEAD_DIMS:
                for mask_name in MASKS:
                    if clock.left() < 0:
                        return measured
                    seq = min(seq, tokens)
                    # A bias of one plane for each head; AlphaFold's few small heads share it over many examples.
                    heads = min(8, width // dim) if mask_name == "bias" else width // dim
                    if mask_name == "bias" and seq > 4096:
                        continue
                    arrays = operands(max(tokens // seq, 1), seq, max(heads, 1), dim, dtype)
                    extra = (draw((1, max(heads, 1), seq, seq), dtype, 9),) if mask_name == "bias" else ()
                    mask = None if mask_name == "bias" else masks_by_name(arrays[0].shape[0], seq)[mask_name]
                    for direction in choice.DIRECTIONS:
                        sides, reasons = try_sides({n: makers(n, arrays, extra, mask, direction) for n in choice.NAMES})
                        wrong = {name for name in sides if name != "xla" and not is_right(name, arrays, extra, mask)}
                        times = race(sides, 0.05 if tiny else 0.3, rounds=5)
                        row = choice.Row(device, dtype, dim, length, mask_name, direction, orders(times, wrong))
                        rows[row.key] = row
                        measured.append(row)
                        print(json.dumps({"row": row.key, "ms": times, "wrong": sorted(wrong), "cannot": sorted(reasons)}), flush=True)
                        choice.write(list(rows.values()), path)
    return measured


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0, help="the time budget")
    parser.add_argument("--out", type=pathlib.Path, default=choice.FILE, help="the table to write")
    options = parser.parse_args(arguments)
    if jax.default_backend() != "gpu":
        parser.error(f"no GPU: jax runs on {jax.default_backend()}")
    print(f"{len(tune(Clock(60 * options.minutes), options.out))} rows in {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
