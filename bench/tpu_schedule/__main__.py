"""Schedules of attention and norms on TPUs, ours and the rivals'.

    JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 python -m bench.tpu_schedule --for v5e --dims 128 --lengths 4096

Needs `jax[tpu]`. A program compiles in seconds to a minute; rows are added to those of earlier runs, and a run that was
interrupted goes on where it stopped: what the same versions made of the same kernels is not compiled again.
"""

import argparse
import ast
import functools
import hashlib
import importlib.metadata
import pathlib
import sys
from collections.abc import Iterator

import jax

import kernels
from bench.machine import RESULTS

from . import attention, norms
from .chips import CHIPS
from .count import Row
from .dump import DumpError
from .measure import measure
from .table import Summary, markdown, read, summary, write

BACKWARD = ("backward", "bwd", "dkv", "dq", "gradients")


def main() -> None:
    """Compile what the flags ask for; write after each program."""
    options = _options()
    for one in _rows(options):
        print(markdown([one]).splitlines()[-1], flush=True)
        if options.out:
            write(options.out, [one])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.tpu_schedule", description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--for", dest="chips", nargs="+", choices=tuple(CHIPS), default=["v5e", "v5p"], help="generations")
    add("--ops", nargs="+", choices=("attention", "norm"), default=["attention", "norm"])
    add("--cases", nargs="+", choices=attention.CASES, default=list(attention.CASES), help="masks and options")
    add("--dims", nargs="+", type=int, default=[64, 128, 256], help="head_dim")
    add("--lengths", nargs="+", type=int, default=[1024, 4096, 32768], help="positions")
    add("--by", nargs="+", choices=("ours", "splash", "flash", "xla"), default=["ours", "splash", "flash", "xla"])
    add("--blocks-of", type=_place, help="CHIP:LENGTH: splash with the blocks alone that are best there in --out")
    add("--out", type=pathlib.Path, help=f"folder of schedule.json and schedule.md, as {RESULTS.name}/tpu")
    options = parser.parse_args()
    for flag, values in (("--dims", options.dims), ("--lengths", options.lengths)):
        if min(values) < 1:
            parser.error(f"{flag} must be positive: got {min(values)}")
    return options


def _place(text: str) -> tuple[str, int]:
    chip, _, length = text.partition(":")
    if chip not in CHIPS or not length.isdigit():
        raise argparse.ArgumentTypeError(f"must be a generation and a length, as v5e:4096: got {text!r}")
    return chip, int(length)


def _rows(options: argparse.Namespace) -> Iterator[Summary]:
    for chip in options.chips:
        if "attention" in options.ops:
            for case in options.cases:
                for head_dim in options.dims:
                    for seq in options.lengths:
                        problem = attention.Problem(case, seq, head_dim)
                        yield from () if problem.trivial else _attention(chip, problem, options)
        if "norm" in options.ops:
            for case in norms.CASES:
                yield from _norm(chip, case, options)


def _attention(chip: str, problem: attention.Problem, options: argparse.Namespace) -> Iterator[Summary]:
    key = {"chip": chip, "op": "attention", "case": problem.case, "seq": problem.seq, "head_dim": problem.head_dim}
    least = problem.pairs * problem.head_dim / CHIPS[chip].products
    calls = [(name, call) for name, call in attention.calls(problem) if name.split(" ")[0] in options.by]
    best = _best_blocks(key, options) if options.blocks_of else set()
    fits = best <= {x for _, call in calls for x in call.blocks.items()}
    for name, call in calls:
        if call.blocks and best and fits and not best & set(call.blocks.items()):
            continue
        made = _made(name, "attention")
        if _is_done(key, made, options):
            continue
        arguments = call.arguments(problem)
        try:
            both = measure(call.both, *arguments, topology=chip, every=True)
        except jax.errors.JaxRuntimeError as error:
            if not call.blocks or "RESOURCE_EXHAUSTED" not in str(error):
                raise
            print(f"{name} does not fit the vector memory: {key}", file=sys.stderr, flush=True)
            continue
        if name == "xla":
            forward = measure(call.forward, *arguments[1:], topology=chip, every=True)
            yield key | {"phase": "forward", "by": name} | summary(forward, [], None) | made
            yield key | {"phase": "both", "by": name} | summary(both, [], None) | made
        else:
            for phase, rows, products in _phases(both):
                by = f"splash {attention.sizes(call.blocks[phase])}" if call.blocks else name
                yield key | {"phase": phase, "by": by} | summary(rows, _outside(both), products * least) | made


def _norm(chip: str, case: norms.Case, options: argparse.Namespace) -> Iterator[Summary]:
    key = {"chip": chip, "op": "norm", "case": str(case), "seq": None, "head_dim": None}
    for name, function, arguments in norms.calls(case):
        made = _made(name, "norm")
        if name not in options.by or _is_done(key, made, options):
            continue
        both = measure(function, *arguments, topology=chip, every=True)
        if name == "xla":
            yield key | {"phase": "both", "by": name} | summary(both, []) | made
        else:
            for phase, rows, _ in _phases(both):
                yield key | {"phase": phase, "by": name} | summary(rows, _outside(both)) | made


def _made(program: str, op: str) -> Summary:
    """The versions that a schedule is of, with a digest of our kernels' code."""
    versions = [f"{x} {importlib.metadata.version(x)}" for x in ("jax", "libtpu")]
    return {"program": program, "with": ", ".join([*versions, *([_code(op)] if program == "ours" else [])])}


@functools.cache
def _code(op: str) -> str:
    files = sorted((pathlib.Path(kernels.__file__).parent / op / "mosaic_tpu").glob("*.py"))
    trees = (ast.dump(ast.parse(x.read_text(encoding="utf-8"))) for x in files)
    return "code " + hashlib.sha256("".join(trees).encode()).hexdigest()[:12]


def _is_done(key: Summary, made: Summary, options: argparse.Namespace) -> bool:
    """True if the output has the last row that this program gives."""
    last = ("both",) if made["program"] == "xla" else ("backward",)
    wanted = key | made
    return any(x["phase"] in last and wanted.items() <= x.items() for x in map(_plain, read(options.out)))


def _plain(row: Summary) -> Summary:
    return {k: x for k, x in row.items() if not isinstance(x, (dict, list))}


def _best_blocks(key: Summary, options: argparse.Namespace) -> set[tuple[str, tuple[int, ...]]]:
    """Splash's best blocks of each pass for this case and head_dim at `--blocks-of`."""
    wanted, best = key | dict(zip(("chip", "seq"), options.blocks_of)), {}
    for x in map(_plain, read(options.out)):
        if x["by"].startswith("splash") and wanted.items() <= x.items():
            best[x["phase"]] = min(x, best.get(x["phase"], x), key=lambda y: y["total"])
    return {(phase, tuple(map(int, x["by"].split(" ")[1].split("/")))) for phase, x in best.items()}


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
