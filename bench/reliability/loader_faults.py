"""R12: whatever happens to those who read the data reaches the training loop, soon and by name; and R3 for the data.

  nice python -m bench.reliability.loader_faults --folder /tmp/r12

At a random example of a random step, each `--count` times: a picture is damaged (exception), a worker process is killed
with -9 (death), a picture is replaced by a pipe without a writer (hang, with a --data.timeout of 2 s), a prepared
file is cut short (short file). Then the example is repaired, and the batches from the failed step on must be those of a
feed that nothing happened to.
"""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.reliability.common import ROOT, run
from train.data import DataConfig, DataError, Dataset, Order, Part, load
from train.data.feed.feed import Feed
from train.data.preparation import prepare_images

STEPS, BATCH = 40, 6
EARLY = 10
"""Faults come before this step: what is read ahead by then is not yet all."""
LIMIT = 5.0
"""Seconds within which a fault must be known."""
TIMEOUT = 2.0


def write_pictures(folder: Path) -> None:
    draw = np.random.default_rng(0)
    for name in "abc":
        (folder / name).mkdir(parents=True)
        for index in range(16):
            Image.fromarray(draw.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / name / f"{index}.png")


class Making:
    """The arrays of a part. A class, so that worker processes find it by its name."""

    def __init__(self, data: Dataset):
        self.data = data

    def __call__(self, part: Part) -> dict[str, np.ndarray]:
        return {"image": self.data.train_images[part.example], "label": self.data.train_labels[part.example]}


class Trial:
    """One feed over a data set in its files, and the batches that it should give."""

    def __init__(self, source: Path, **reading: Any):
        whole = load(DataConfig(str(source)))
        self.data = load(DataConfig(str(source), memory=0.0))
        self.order = Order(1, BATCH, len(whole.train_images))
        self.expected = [Making(whole)(self.order.part(step)) for step in range(STEPS)]
        self.config = DataConfig(timeout=TIMEOUT, **{"threads": 2} | reading)

    def feed(self, first: int = 0) -> Feed:
        return Feed(
            Making(self.data), self.data.train_images, self.order, first=first, last=STEPS, config=self.config, depth=1
        )

    def check(self, batch: dict[str, np.ndarray], step: int) -> None:
        for name, array in self.expected[step].items():
            assert np.array_equal(batch[name], array), f"step {step} has another {name}"

    def until_fault(self, before: Callable[[int], None] = lambda step: None) -> tuple[int, float, str]:
        """The step that failed, how long after the last good one, and what was said."""
        with self.feed() as feed:
            for step in range(STEPS):
                before(step)
                begin = time.perf_counter()
                try:
                    self.check(feed.take(), step)
                except DataError as error:
                    return step, time.perf_counter() - begin, str(error)
        raise AssertionError("the fault was not seen")

    def resumes(self, step: int) -> None:
        """Raises unless the batches from a step on are the expected ones."""
        self.config = DataConfig(threads=2)
        with self.feed(step) as feed:
            for later in range(step, STEPS):
                self.check(feed.take(), later)


def exception(folder: Path, rng: random.Random, workers: int) -> float:
    """A picture damaged between listing and reading."""

    def damage(path: Path, content: bytes) -> None:
        path.write_bytes(content[: rng.randrange(len(content))])

    return _spoilt(Trial(folder / "pictures", workers=workers), rng, damage)


def hang(folder: Path, rng: random.Random, workers: int) -> float:
    """A picture that is never there."""

    def block(path: Path, content: bytes) -> None:
        path.unlink()
        os.mkfifo(path)

    return _spoilt(Trial(folder / "pictures", workers=workers), rng, block)


def _spoilt(trial: Trial, rng: random.Random, spoil: Callable[[Path, bytes], None]) -> float:
    step, place = rng.randrange(1, EARLY), rng.randrange(BATCH)  # the first waits for worker processes to start
    example = int(trial.order.part(step).example[place])
    path = Path(trial.data.train_images.name(example))
    content = path.read_bytes()
    spoil(path, content)
    failed, seconds, said = trial.until_fault()
    if path.is_fifo():
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))  # lets the thread go that waits in this process
        path.unlink()
    path.write_bytes(content)
    first = next(s for s in range(STEPS) if example in trial.order.part(s).example)
    assert failed == first, (failed, first, said)
    assert str(path) in said, said
    assert f"example {example}, step {first}" in said, said
    trial.resumes(failed)
    return seconds


def death(folder: Path, rng: random.Random, workers: int) -> float:
    """A worker process killed with -9."""
    trial, victim, killed = Trial(folder / "pictures", workers=max(1, workers)), rng.randrange(1, EARLY), []

    def kill(step: int) -> None:
        if step == victim:
            process = rng.choice([p for p in multiprocessing.active_children() if p.name.startswith("grain")])
            assert process.pid
            os.kill(process.pid, signal.SIGKILL)
            killed.append(time.perf_counter())

    failed, _, said = trial.until_fault(kill)
    seconds = time.perf_counter() - killed[0]
    example = said.split("example ")[1].split(",")[0]
    assert trial.data.train_images.name(int(example)) in said, said
    assert f"step {failed}" in said, said
    trial.resumes(failed)
    return seconds


def short_file(folder: Path, rng: random.Random, workers: int) -> float:
    """A prepared file cut short while it is read."""
    trial, victim, cut = Trial(folder / "prepared", workers=workers), rng.randrange(1, EARLY), []
    path = folder / "prepared" / "train-images-00000.npy"
    content = path.read_bytes()

    def truncate(step: int) -> None:
        if step == victim:
            os.truncate(path, rng.randrange(200))
            cut.append(time.perf_counter())

    failed, _, said = trial.until_fault(truncate)
    seconds = time.perf_counter() - cut[0]
    path.write_bytes(content)
    assert str(path) in said, said
    assert f"step {failed}" in said, said
    assert "example " in said, said
    trial.resumes(failed)
    return seconds


FAULTS = {"exception": exception, "death": death, "hang": hang, "short_file": short_file}


def orphans() -> list[int]:
    """Processes that this one has started and that are still there, but for the one that Python keeps to clean up after
    it.
    """
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields, line = stat.read_text().rpartition(")")[2].split(), (stat.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and fields[0] != "Z" and b"resource_tracker" not in line:
            found.append(int(stat.parent.name))
    return found


def restored_everywhere(folder: Path, steps: int) -> int:
    """R3: a feed begun at each of `steps` steps gives all later batches; gives how many were compared."""
    data = load(DataConfig(str(folder / "pictures")))
    order, make, compared = Order(2, 5, len(data.train_images)), Making(data), 0
    whole: list[dict[str, np.ndarray]] = []
    for first in range(steps):
        with Feed(make, data.train_images, order, first=first, last=steps, config=DataConfig()) as feed:
            batches = [feed.take() for _ in range(first, steps)]
        whole = whole or batches
        for one, two in zip(batches, whole[first:]):
            assert all(np.array_equal(one[name], two[name]) for name in two), first
            compared += 1
    return compared


def command(folder: Path, workers: int) -> float:
    """`python -m train.vqgan` on a picture that hangs: seconds until it ends by itself, with status 1 and the picture's
    name.
    """
    path = folder / "pictures" / "b" / "3.png"
    content = path.read_bytes()
    path.unlink()
    os.mkfifo(path)
    flags = [
        "--data.memory",
        "0",
        "--data.timeout",
        str(TIMEOUT),
        "--data.workers",
        str(workers),
        "--batch-size",
        "8",
        "--model.width",
        "8",
    ]
    line = [
        sys.executable,
        "-m",
        "train.vqgan",
        "--run-dir",
        str(folder / f"run-{workers}"),
        "--data.name",
        str(folder / "pictures"),
        *flags,
    ]
    begin = time.perf_counter()
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    seconds = time.perf_counter() - begin
    path.unlink()
    path.write_bytes(content)
    assert done.returncode == 1, done.stderr
    assert f"{path}: expected an example within --data.timeout 2 s" in done.stderr, done.stderr
    return round(seconds, 2)


def measure(count: int, folder: Path) -> dict[str, Any]:
    write_pictures(folder / "pictures")
    prepare_images(DataConfig(str(folder / "pictures")), folder / "prepared", 2**30, lambda line: None)
    rng, left = random.Random(0), 0
    numbers: dict[str, Any] = {"limit_s": LIMIT}
    for name, fault in FAULTS.items():
        seconds = []
        for trial in range(count):
            seconds.append(fault(folder, rng, workers=2 if trial % 4 == 3 else 0))
            left += len(orphans())
        numbers[name] = {"trials": count, "surfaced": len(seconds), "worst_s": round(max(seconds), 2)}
    numbers["orphans"] = left
    numbers["resumed"] = count * len(FAULTS)
    numbers["R3_batches_compared"] = restored_everywhere(folder, 200 if count >= 20 else 20)
    if count >= 20:
        numbers["command_ends_s"] = {"threads": command(folder, 0), "workers": command(folder, 2)}
    numbers["reached"] = not left and all(numbers[name]["worst_s"] <= LIMIT for name in FAULTS)
    return numbers


if __name__ == "__main__":
    run("R12", __doc__ or "", 20, measure)
