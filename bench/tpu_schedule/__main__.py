"""Schedules of attention and norms on TPUs, ours and the rivals'.

    JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 python -m bench.tpu_schedule --for v5e --dims 128 --lengths 4096

Needs `jax[tpu]`. A program compiles in seconds to a minute; rows are added to those of earlier runs.
"""

import argparse
import pathlib
from collections.abc import Iterator

import jax

from bench.machine import RESULTS

from . import attention, norms
from .chips import CHIPS
from .count import Row
from .dump import DumpError
from .measure import measure
from .table import Summary, markdown, summary, write

BACKWARD = ("backward", "bwd", "dkv", "dq", "gradients")


def main() -> None:
    """Compile what the flags ask for; write after each program."""
    options = _options()
    found: list[Summary] = []
    for one in _rows(options):
        found.append(one)
        print(markdown([one]).splitlines()[-1], flush=True)
        if options.out:
            write(options.out, found, jax.__version__)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.tpu_schedule", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--for", dest="chips", nargs="+", choices=tuple(CHIPS), default=["v5e", "v5p"], help="generations")
    add("--ops", nargs="+", choices=("attention", "norm"), default=["attention", "norm"])
    add("--cases", nargs="+", choices=attention.CASES, default=list(attention.CASES), help="masks and options")
    add("--dims", nargs="+", type=int, default=[64, 128, 256], help="head_dim")
    add("--lengths", nargs="+", type=int, default=[1024, 4096, 32768], help="positions")
    add("--by", nargs="+", choices=("ours", "splash", "flash", "xla"), default=["ours", "splash", "flash", "xla"])
    add("--out", type=pathlib.Path, help=f"folder of schedule.json and schedule.md, as {RESULTS.name}/tpu")
    options = parser.parse_args()
    for flag, values in (("--dims", options.dims), ("--lengths", options.lengths)):
        if min(values) < 1:
            parser.error(f"{flag} must be positive: got {min(values)}")
    return options


def _rows(options: argparse.Namespace) -> Iterator[Summary]:
    for chip in options.chips:
        if "attention" in options.ops:
            for case in options.cases:
                for head_dim in options.dims:
                    for seq in options.lengths:
                        yield from _attention(chip, attention.Problem(case, seq, head_dim), options.by)
        if "norm" in options.ops:
            for case in norms.CASES:
                yield from _norm(chip, case, options.by)


def _attention(chip: str, problem: attention.Problem, by: list[str]) -> Iterator[Summary]:
    key = {"chip": chip, "op": "attention", "case": problem.case, "seq": problem.seq, "head_dim": problem.head_dim}
    least = problem.pairs * problem.head_dim / CHIPS[chip].products
    for name, call in attention.calls(problem):
        if name.split(" ")[0] not in by:
            continue
        arguments = call.arguments(problem)
        both = measure(call.both, *arguments, topology=chip, every=True)
        if name == "xla":
            forward = measure(call.forward, *arguments[1:], topology=chip, every=True)
            yield key | {"phase": "forward", "by": name} | summary(forward, [], None)
            yield key | {"phase": "both", "by": name} | summary(both, [], None)
        else:
            for phase, rows, products in _phases(both):
                yield key | {"phase": phase, "by": name} | summary(rows, _outside(both), products * least)


def _norm(chip: str, case: norms.Case, by: list[str]) -> Iterator[Summary]:
    key = {"chip": chip, "op": "norm", "case": str(case), "seq": None, "head_dim": None}
    for name, function, arguments in norms.calls(case):
        if name not in by:
            continue
        both = measure(function, *arguments, topology=chip, every=True)
        if name == "xla":
            yield key | {"phase": "both", "by": name} | summary(both, [])
        else:
            for phase, rows, _ in _phases(both):
                yield key | {"phase": phase, "by": name} | summary(rows, _outside(both))


def _phases(rows: list[Row]) -> Iterator[tuple[str, list[Row], int]]:
    """The Pallas kernels of each pass, with the matrix products of attention in it."""
    kernels = [x for x in rows if x.pallas]
    backward = [x for x in kernels if any(word in x.name for word in BACKWARD)]
    for phase, part, products in (("forward", [x for x in kernels if x not in backward], 2), ("backward", backward, 5)):
        if part:
            yield phase, part, products


def _outside(rows: list[Row]) -> list[Row]:
    return [x for x in rows if not x.pallas]


if __name__ == "__main__":
    try:
        main()
    except DumpError as error:
        raise SystemExit(f"error: {error}") from None
