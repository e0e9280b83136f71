"""A benchmark by name: `python -m bench attention --help`; without a name, the list of them."""

import runpy
import sys

BENCHMARKS = {
    "attention": "bench.ops.attention",
    "norm": "bench.ops.norm",
    "rng": "bench.ops.rng",
    "layers": "bench.layers",
    "gpt": "bench.models.gpt",
    "overhead": "bench.startup.overhead",
    "start": "bench.startup.start",
    "compile": "bench.startup.compile",
    "input": "bench.startup.input",
    "gpu": "bench.gpu",
    "tpu-attention": "bench.tpu.attention",
    "tpu-norm": "bench.tpu.norm",
    "tpu-scaling": "bench.tpu.scaling",
}


def main(argv: list[str]) -> int:
    """Runs the benchmark that `argv` names with the rest of it; gives the exit status."""
    if not argv or argv[0] not in BENCHMARKS:
        got = f"got {argv[0]!r}" if argv else "got none"
        print(f"error: name a benchmark, one of {', '.join(BENCHMARKS)}: {got}", file=sys.stderr)
        return 2
    sys.argv = [BENCHMARKS[argv[0]], *argv[1:]]
    runpy.run_module(BENCHMARKS[argv[0]], run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
