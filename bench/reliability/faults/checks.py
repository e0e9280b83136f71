"""The table of checks, and the commands and data that they share.

A check runs in a process of its own, with an empty folder, on the packages of the checkout that is asked.
"""

import contextlib
import importlib
import io
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Found = tuple[bool, str]
"""True where the right behaviour was found, and what came."""


class Check(NamedTuple):
    """One row: kind of the fault, the right behaviour, and the function that looks for it in an empty folder."""

    kind: str
    right: str
    look: Callable[[Path], Found]


CHECKS: dict[int, Check] = {}
"""Checks by the number of their row."""
_TEXT = (
    "--model.dim 16 --model.depth 1 --model.heads 2 --model.context 16 --batch-size 4 --eval-batches 2 "
    "--sample-tokens 10 --log-every 1"
)
_IMAGES = "--model.dim 16 --model.depth 1 --model.heads 2 --model.hidden-dim 32 --batch-size 8 --log-every 1"
TEXT_MODEL, IMAGE_MODEL = _TEXT.split(), _IMAGES.split()
"""Flags of small models."""
USUAL = (ValueError, TypeError, AttributeError, NotImplementedError, NameError, IndexError)


def check(number: int, kind: str, right: str) -> Callable[[Callable[[Path], Found]], Callable[[Path], Found]]:
    """Adds a check to the table."""

    def add(look: Callable[[Path], Found]) -> Callable[[Path], Found]:
        CHECKS[number] = Check(kind, right, look)
        return look

    return add


def command(module: str, *words: str, **environment: str) -> tuple[int, str]:
    """Exit status and output of `python -m MODULE WORDS`."""
    line = [sys.executable, "-m", module, *map(str, words)]
    done = subprocess.run(
        line,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    return done.returncode, done.stdout


def last(output: str) -> str:
    """The last line of an output."""
    lines = [line for line in output.splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else "no output"


def member(*places: str) -> Any:
    """The member of the first of several modules that exists, each as module:name."""
    for place in places:
        module, _, name = place.partition(":")
        if _exists(module):
            return getattr(importlib.import_module(module), name)
    raise ImportError(f"none of {', '.join(places)} exists")


def _exists(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


class Outcome:
    """The error of a call, or the lack of one, and what was printed."""

    error: str = ""
    said: str = ""


@contextlib.contextmanager
def outcome(kinds: tuple[type[Exception], ...] = USUAL) -> Iterator[Outcome]:
    """Notes an error of a call, of any of the kinds, and what the call prints."""
    found, said = Outcome(), io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            yield found
    except kinds as error:
        found.error = "".join(traceback.format_exception_only(error)).strip().replace("\n", " ")
    found.said = said.getvalue()


def write_text(path: Path, end: str = "\n") -> str:
    """A text of 300 lines of eight words; gives its path."""
    rng = np.random.default_rng(0)
    words = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog"]
    path.write_bytes(end.join(" ".join(rng.choice(words, 8)) for _ in range(300)).encode())
    return str(path)


def write_pictures(folder: Path, names: list[str], side: int = 8) -> str:
    """Pictures of noise at these paths; gives their folder."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (side, side, 3), np.uint8)).save(path)
    return str(folder)


def text_run(folder: Path, *words: str, steps: int = 4, name: str = "run") -> tuple[int, str]:
    """Training of a small language model on a text of `write_text`, in FOLDER/NAME."""
    text = folder / "text.txt"
    if not text.exists():
        write_text(text)
    data = ["--data.name", str(text), "--run-dir", str(folder / name), "--steps", str(steps)]
    return command("train.gpt", *TEXT_MODEL, *data, *words)


def shared(folder: Path, name: str) -> Path:
    """A run that several checks read, made once beside their folders: `text` or `images`."""
    path = folder.parent / f"shared-{name}"
    if not (path / "run" / "summary.json").exists():
        path.mkdir(exist_ok=True)
        if name == "text":
            status, output = text_run(path, "--optim.decay", "constant", "--optim.warmup", "2")
        else:
            evals = ["--sample-every", "0", "--decode.steps", "2", "--checkpoint-every", "2"]
            words = [*IMAGE_MODEL, "--steps", "2", "--run-dir", str(path / "run"), *evals]
            status, output = command("train.maskgit", *words)
        if status:
            raise RuntimeError(output[-2000:])
    return path / "run"
