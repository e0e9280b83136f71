"""Benchmarks by name: `python -m bench attention norms -k causal`.

Without a name all microbenchmarks run, in under ten minutes on two cores; `--full` runs all shapes. Each name is a file
`bench_NAME.py`; pytest-benchmark times it, and all other arguments are pytest's. Some names are commands with arguments
of their own.
"""

import os
import pathlib
import runpy
import sys

HERE = pathlib.Path(__file__).parent
# No other plugin: hypothesis alone takes a second to import.
PYTEST = ("-c", str(HERE / "pytest.ini"), "--disable-plugin-autoload", "-p", "pytest_benchmark.plugin")
SCRIPTS = {
    "gpu": "bench.gpu",
    "report": "bench.report",
    "tpu-attention": "bench.tpu.attention",
    "tpu-norm": "bench.tpu.norm",
    "tpu-scaling": "bench.tpu.scaling",
}


def files() -> dict[str, pathlib.Path]:
    """The microbenchmarks by name."""
    return {path.stem.removeprefix("bench_"): path for path in sorted(HERE.rglob("bench_*.py"))}


def pytest_arguments(argv: list[str]) -> list[str]:
    """pytest's command line: the files of the leading names, all files without one, then the rest of `argv`.

    Raises:
        SystemExit: a leading word is not the name of a benchmark.
    """
    known = files()
    count = next((n for n, word in enumerate(argv) if word.startswith("-")), len(argv))
    names = argv[:count]
    if unknown := [name for name in names if name not in known]:
        choices = ", ".join([*known, *SCRIPTS])
        raise SystemExit(f"error: benchmark must be one of {choices}: got {unknown[0]!r}")
    paths = [str(known[name]) for name in names or known]
    return [*PYTEST, *paths, *argv[count:]]


def main(argv: list[str]) -> int:
    """Exit status of the benchmarks that `argv` names."""
    if argv and argv[0] in SCRIPTS:
        sys.argv = [SCRIPTS[argv[0]], *argv[1:]]
        runpy.run_module(SCRIPTS[argv[0]], run_name="__main__", alter_sys=True)
        return 0
    if "--help" in argv or "-h" in argv:
        print(f"{__doc__}\nNames: {', '.join(files())}\nCommands: {', '.join(SCRIPTS)}\n", flush=True)
    # PyTorch's memory is on the same device.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import pytest

    return int(pytest.main(pytest_arguments(argv)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
