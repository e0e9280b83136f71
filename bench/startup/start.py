"""From the command to the first step, with an empty cache of compiled programs and with one that a start before has
filled.

  python -m bench.startup.start [CASE]   writes bench/results/cpu/start.json

Each pair is a first and a second start of the same run in fresh folders; ratios are medians over the pairs.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax

OUT = Path(__file__).parents[1] / "results" / "cpu" / "start.json"
CASES = {
    "digits": [],
    # The cifar10 preset's transformer, on the tokens of digits, which need no download.
    "cifar10_model": [
        "--model.dim",
        "384",
        "--model.depth",
        "8",
        "--model.heads",
        "12",
        "--model.hidden-dim",
        "1536",
        "--batch-size",
        "8",
    ],
}


def first_step(flags: list[str], cache: Path) -> float:
    """Seconds until a new run says that it made its first step; then it is ended."""
    with tempfile.TemporaryDirectory() as folder:
        line = [
            sys.executable,
            "-m",
            "train.maskgit",
            "--run-dir",
            f"{folder}/run",
            "--log-every",
            "1",
            "--compile-cache",
            str(cache),
            *flags,
        ]
        env = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
        begin = time.perf_counter()
        with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env) as process:
            assert process.stdout is not None
            for text in process.stdout:
                if text.startswith("step 1/"):
                    seconds = time.perf_counter() - begin
                    process.kill()
                    return seconds
    raise RuntimeError(f"{line} ended before its first step")


def pair(flags: list[str]) -> tuple[float, float]:
    """The first and the second start."""
    with tempfile.TemporaryDirectory() as cache:
        return first_step(flags, Path(cache)), first_step(flags, Path(cache))


def measure(name: str, rounds: int) -> dict[str, float]:
    """Medians over pairs of starts of one case."""
    pairs = [pair(CASES[name]) for _ in range(rounds)]
    return {
        f"{name}_first_s": round(statistics.median(first for first, _ in pairs), 2),
        f"{name}_second_s": round(statistics.median(second for _, second in pairs), 2),
        f"{name}_ratio": round(statistics.median(first / second for first, second in pairs), 2),
    }


def main(names: list[str], rounds: int) -> None:
    result = json.loads(OUT.read_text()) if OUT.exists() else {}
    for name in names:
        result |= measure(name, rounds) | {f"{name}_rounds": rounds}
    result |= {"jax_version": jax.__version__, "python": sys.version.split()[0]}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], help="all by default")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    main(options.cases or list(CASES), options.rounds)
