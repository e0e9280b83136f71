"""Real training runs on the GPU at hand, ten minutes each: nanoGPT's character model, and MaskGIT on photos with its
tokenizer.

    python -m bench.gpu.train DATA                        both; results in bench/results/<device>/runs
    python -m bench.gpu.train DATA --only characters      nanoGPT's: 1.4697 on the validation text is to be beaten
    python -m bench.gpu.train DATA --only photos --data-set cifar10
    python -m bench.gpu.train DATA --tiny --minutes 3 --out /tmp/x      the machinery, in sizes for a CPU

Each model is a recipe's own command, printed as it is run: after SIGTERM at the end of the time the same command
resumes. The character model trains its published 5,000 steps. The steps of the photos' two models are set by measured
rates: each starts, is stopped after some lines of metrics, and starts again with as many steps as its share of the time
has room for; compiled programs are kept.
"""

import argparse
import json
import math
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from typing import Any

from bench.gpu.__main__ import device
from bench.machine import folder

# The tokenizer's share of the time of a model of photos, and the share of either's that is left for samples, their
# judge and the evaluation.
TOKENIZER, SPARE = 0.4, 0.25
WARM, SEEN = 2, 4  # lines of metrics that a measured rate leaves out, and that it needs
# A CPU's.
TINY = {
    "gpt": "--steps 20 --batch-size 4 --model.dim 16 --model.depth 1 --model.heads 2 --eval-batches 2",
    "vqgan": "--batch-size 4 --model.width 8 --model.latent-dim 4 --model.codes 8 --model.multipliers 1 1 1",
    "maskgit": "--batch-size 4 --model.dim 16 --model.depth 1 --model.heads 2 --decode.steps 2",
}


class Runner:
    """Runs recipes, each in a folder of `runs`, until a moment of `time.monotonic`."""

    def __init__(self, data: pathlib.Path, runs: pathlib.Path, end: float, *, tiny: bool):
        self.data, self.runs, self.end, self.tiny = data, runs, end, tiny

    def command(self, recipe: str, preset: str, *flags: str) -> list[str]:
        where, data = str(self.runs / f"{recipe}-{preset}"), str(self.data)
        start = [sys.executable, "-m", f"train.{recipe}", "--preset", preset, "--data.root", data, "--run-dir", where]
        return [*start, *(TINY[recipe].split() if self.tiny else ()), *flags]

    def run(self, command: list[str]) -> pathlib.Path:
        """The run's folder, once it is complete.

        Raises:
            SystemExit: it is not, at the end of the time or for a reason of its own.
        """
        print("$", " ".join(["python", *command[1:]]), flush=True)
        where = pathlib.Path(command[command.index("--run-dir") + 1])
        with subprocess.Popen(command) as child:
            try:
                status = child.wait(max(self.end - time.monotonic(), 1.0))
            except subprocess.TimeoutExpired:
                _stop(child)
                raise SystemExit(f"{where}: the time is up; the same command resumes it") from None
        if status:
            raise SystemExit(f"{where}: it ended with {status}")
        return where

    def steps(self, command: list[str], seconds: float) -> int:
        """Steps of a run that fit, by the time of some; nothing of these is kept but compiled programs."""
        where = self.runs / "probe"
        shutil.rmtree(where, ignore_errors=True)
        flags = "--steps 1000000 --log-every 10 --sample-every 0 --checkpoint-every 1000000"
        probe = [*command, *flags.split()]
        probe[probe.index("--run-dir") + 1] = str(where)
        began = time.monotonic()
        with subprocess.Popen(probe) as child:
            lines: list[dict[str, Any]] = []
            while len(lines) < SEEN and child.poll() is None and time.monotonic() < self.end:
                time.sleep(0.2)
                lines = read(where / "metrics.jsonl")
            _stop(child)
        shutil.rmtree(where, ignore_errors=True)
        if len(lines) < SEEN:
            raise SystemExit(f"{where}: no rate could be measured")
        left = seconds - (time.monotonic() - began)
        if (count := fitting(lines, left)) == 0:
            raise SystemExit(
                f"{where}: no step fits into the {left:.0f} seconds that are left for it; give more --minutes"
            )
        return count


def fitting(lines: list[dict[str, Any]], seconds: float) -> int:
    """Steps that fit into so many seconds, start included, by a run's lines of metrics: a multiple of 100 where there
    are as many, or 0.
    """
    first, last = lines[WARM], lines[-1]
    each = (last["seconds"] - first["seconds"]) / (last["step"] - first["step"])
    start = max(first["seconds"] - first["step"] * each, 0.0)
    count = math.floor((seconds * (1 - SPARE) - start) / each)
    return max(count // 100 * 100 if count >= 100 else count, 0)


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """The whole lines of a file that may still be written."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


def characters(runner: Runner) -> list[pathlib.Path]:
    return [runner.run(runner.command("gpt", "nano-char"))]


def photos(runner: Runner, data_set: str) -> list[pathlib.Path]:
    """The tokenizer, then MaskGIT on its tokens."""
    tokenizer = runner.command("vqgan", data_set)
    share = TOKENIZER * (runner.end - time.monotonic())
    found = [runner.run([*tokenizer, "--steps", str(runner.steps(tokenizer, share))])]
    maskgit = runner.command("maskgit", data_set, "--tokenizer", str(found[0]))
    return [*found, runner.run([*maskgit, "--steps", str(runner.steps(maskgit, runner.end - time.monotonic()))])]


def keep(run: pathlib.Path, out: pathlib.Path) -> None:
    """A run's summary, its curve, its lines of metrics and its last samples, under its name."""
    out.mkdir(parents=True, exist_ok=True)
    shutil.copy(run / "summary.json", out / f"{run.name}.json")
    shutil.copy(run / "metrics.jsonl", out / f"{run.name}.jsonl")
    for path in [*sorted(run.glob("samples/*"))[-1:], *run.glob("*.svg")]:
        shutil.copy(path, out / f"{run.name}{path.suffix}")


def _stop(child: subprocess.Popen) -> None:
    """Ends a run as a queue would; it saves what it has."""
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(60)
    except subprocess.TimeoutExpired:
        child.kill()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", type=pathlib.Path, help="the folder of the data sets")
    parser.add_argument("--only", choices=("characters", "photos"))
    parser.add_argument(
        "--data-set", choices=("eurosat64", "cifar10", "digits"), help="of the photos; with --tiny, digits"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="of each")
    parser.add_argument("--runs", type=pathlib.Path, help="where the runs go; a temporary folder by default")
    parser.add_argument("--out", type=pathlib.Path, help="where the results go; bench/results/<device>/runs by default")
    parser.add_argument("--tiny", action="store_true", help="sizes for a CPU: the machinery alone")
    options = parser.parse_args(arguments)
    name = device()
    if name is None and not (options.tiny and options.out):
        parser.error("no GPU: nvidia-smi names none; --tiny --out FOLDER checks the machinery without one")
    data_set = options.data_set or ("digits" if options.tiny else "eurosat64")
    out = options.out or folder(str(name)) / "runs"
    runs = options.runs or pathlib.Path(tempfile.mkdtemp(prefix="runs-"))
    for what in (options.only,) if options.only else ("characters", "photos"):
        end = time.monotonic() + 60 * options.minutes
        runner = Runner(options.data.resolve(), runs.resolve(), end, tiny=options.tiny)
        made = characters(runner) if what == "characters" else photos(runner, data_set)
        for run in made:
            keep(run, out)
            print((out / f"{run.name}.json").read_text(encoding="utf-8"), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
