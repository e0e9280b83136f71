"""Order of the implementations of attention on a GPU, measured and written to kernels/attention/choice.json.

    python -m bench.gpu.tune_attention                           about 20 minutes; rows of other devices stay
    python -m bench.gpu.tune_attention --minutes 9               the rows that come first, in that time
    python -m bench.gpu.tune_attention --tiny --out /tmp/x.json  the machinery, in sizes for a CPU

One shape represents each class of device, dtype, head_dim, length and mask. A contender that is wrong against XLA's
form is put last, and one that cannot run after those that can. The file is written after each row, and the next program
that is compiled follows it.
"""

import argparse
import functools
import itertools
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from bench.gpu.attention import packed
from bench.gpu.correct import errors
from bench.ops.attention import draw, maker, operands
from bench.race import Clock, Turn, medians, prepare, race
from kernels import dot_product_attention, masks
from kernels.attention import choice

TOKENS, WIDTH = 16384, 2048
# The length that represents each class, most used first.
LENGTHS = {2048: 1024, 512: 256, 8192: 4096, choice.LENGTHS[-1]: 16384}
HEAD_DIMS = (64, 128, 32, 256)
DTYPES = ("bfloat16", "float16", "float32")
MASKS = ("none", "causal", "bias", "packed", "window")
# A CPU's: tokens, width, and the classes.
TINY = (32, 16, {512: 16}, (8,), ("float32",), ("bias", "packed"))


def classes(tiny: bool) -> Iterator[tuple[str, int, int, str, tuple[int, int, int]]]:
    """(dtype, end of the length's class, head_dim, mask) with its (batch, seq, heads), most used first."""
    tokens, width, lengths, dims, dtypes, kinds = TINY if tiny else (TOKENS, WIDTH, LENGTHS, HEAD_DIMS, DTYPES, MASKS)
    for dtype, (length, seq), dim, mask in itertools.product(dtypes, lengths.items(), dims, kinds):
        # A bias of one plane for each head; beyond 4,096 it is larger than all the rest. AlphaFold's few small heads
        # share one.
        if mask != "bias" or seq <= 4096:
            yield (
                dtype,
                length,
                dim,
                mask,
                (tokens // seq, seq, min(8, width // dim) if mask == "bias" else width // dim),
            )


def is_right(name: str, arrays: list[jax.Array], extra: tuple, mask: Any) -> bool:
    """Equality of the output and the gradients with XLA's, up to the dtype's rounding."""
    q, k, v, dout = arrays

    @functools.partial(jax.jit, static_argnums=0)
    def both(name, *x):
        out, pull = jax.vjp(functools.partial(dot_product_attention, mask=mask, implementation=name), *x)
        return out, *pull(dout)

    rounding = 8 * float(jnp.finfo(q.dtype).eps)
    return max(errors(both(name, q, k, v, *extra), both("xla", q, k, v, *extra))) < max(rounding, 1e-3)


def orders(times: dict[str, float], wrong: set[str]) -> tuple[str, ...]:
    """All names: the right ones that ran, fastest first; then those that did not run, in the rule's order; then the
    wrong ones.
    """
    ran = sorted((name for name in times if name not in wrong), key=lambda name: times[name])
    rest = [name for name in choice.NAMES if name not in times and name not in wrong]
    return (*ran, *rest, *(name for name in choice.NAMES if name in wrong))


def tune(clock: Clock, path: pathlib.Path, *, tiny: bool = False) -> list[choice.Row]:
    """The rows measured in time; `path` is written after each."""
    device = jax.devices()[0].device_kind
    rows = {row.key: row for row in choice.read(path.read_text(encoding="utf-8"))} if path.exists() else {}
    measured: list[choice.Row] = []
    for dtype, length, dim, kind, (batch, seq, heads) in classes(tiny):
        arrays = operands(batch, seq, heads, dim, dtype)
        extra = (draw((1, heads, seq, seq), dtype, 9),) if kind == "bias" else ()
        mask = {"causal": masks.Causal(), "packed": packed(batch, seq), "window": masks.Window(seq // 8, 0)}.get(kind)
        turn = Turn(clock)
        kernels = [name for name in choice.NAMES if name != "xla"]
        known = {name: turn.attempt(name, lambda name=name: is_right(name, arrays, extra, mask))[0] for name in kernels}  # noqa: B023
        wrong = {name for name, right in known.items() if right is False}
        for direction in choice.DIRECTIONS:
            attend = lambda name: functools.partial(dot_product_attention, mask=mask, implementation=name)  # noqa: B023
            sides, reasons = prepare({n: maker(attend(n), arrays, extra, direction) for n in choice.NAMES}, turn)
            if clock.left() < 0:
                # Some contender may have had no turn.
                return measured
            times = medians(race(sides, 0.05 if tiny else 0.3, turn, rounds=5))
            row = choice.Row(device, dtype, dim, length, kind, direction, orders(times, wrong))
            rows[row.key] = row
            measured.append(row)
            print(json.dumps({"row": row.key, "ms": times, "wrong": sorted(wrong), "cannot": reasons}), flush=True)
            choice.write(list(rows.values()), path)
    return measured


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=20.0, help="the time budget")
    parser.add_argument("--tiny", action="store_true", help="sizes for a CPU: the machinery alone")
    parser.add_argument("--out", type=pathlib.Path, default=choice.FILE, help="the table to write")
    options = parser.parse_args(arguments)
    if jax.default_backend() != "gpu" and not (options.tiny and options.out != choice.FILE):
        parser.error(f"no GPU: jax runs on {jax.default_backend()}; --tiny --out FILE checks the machinery without one")
    print(f"{len(tune(Clock(60 * options.minutes), options.out, tiny=options.tiny))} rows in {options.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
