"""R5: flipped bits, truncated files, deleted files: all found, with the file and the tensor named, and the step before
used.

  python -m bench.reliability.corruption --folder /tmp/r5

Half of the flips are uniform over the files of the newest step, half over its bytes.
"""

import contextlib
import io
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.reliability.common import is_state_of, run, state_of, template_of
from train._errors import UserError
from train.checkpoint import Checkpoints
from train.checkpoint.manifest import NAME, damage

SIZE = 0.05


def measure(count: int, folder: Path) -> dict[str, Any]:
    checkpoints = Checkpoints(folder / "run", keep=2)
    for step in (1, 2):
        checkpoints.save(step, state_of(step, SIZE))
    checkpoints.close()
    newest = folder / "run" / "2"
    files = sorted(path for path in newest.rglob("*") if path.is_file())
    rng = random.Random(0)
    numbers = {"flips": 0, "flips_found": 0, "cuts": 0, "cuts_found": 0, "fell_back": 0, "refused_with_strict": 0}
    for trial in range(count):
        path = rng.choice(files) if trial % 2 else rng.choices(files, [file.stat().st_size for file in files])[0]
        with _changed(path):
            _flip(path, rng)
            numbers["flips"] += 1
            numbers["flips_found"] += _named(newest, path)
    for path in files:
        for size in (None, 0, path.stat().st_size // 2, path.stat().st_size - 1):
            with _changed(path):
                _cut(path, size)
                numbers["cuts"] += 1
                numbers["cuts_found"] += _named(newest, path)
                if size is None or size:
                    continue
                numbers["fell_back"] += _falls_back(folder / "run", newest)
                numbers["refused_with_strict"] += _refuses(folder / "run", newest)
    reached = numbers["flips_found"] == count and numbers["cuts_found"] == numbers["cuts"]
    return numbers | {
        "files": len(files),
        "reached": reached and numbers["fell_back"] == numbers["refused_with_strict"] == len(files),
    }


def _flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    place = rng.randrange(8 * len(data))
    data[place // 8] ^= 1 << place % 8
    path.write_bytes(bytes(data))


def _cut(path: Path, size: int | None) -> None:
    """Shortens a file to a size, or deletes it."""
    if size is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:size])


@contextlib.contextmanager
def _changed(path: Path) -> Iterator[None]:
    """The file as it was, afterwards."""
    data = path.read_bytes()
    yield
    path.write_bytes(data)


def _named(step: Path, path: Path) -> bool:
    """True where the damage is found and the file and its tensor are named."""
    reason, name = damage(step), path.relative_to(step).as_posix()
    tensor = f"tensor {path.parent.name}" if name.startswith("state/") and path.parent.name != "state" else ""
    return reason is not None and name in reason and (tensor in reason or path.name == NAME)


def _falls_back(folder: Path, newest: Path) -> bool:
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        found = Checkpoints(folder, keep=2).restore(template_of(SIZE))
    loud = f"warning: checkpoint {newest} is damaged and passed over" in said.getvalue()
    return loud and found is not None and found.step == 1 and is_state_of(1, found.state, SIZE)


def _refuses(folder: Path, newest: Path) -> bool:
    try:
        Checkpoints(folder, keep=2, strict=True).restore(template_of(SIZE))
    except UserError as error:
        return str(error).startswith(f"checkpoint {newest} is damaged: ")
    return False


if __name__ == "__main__":
    run("R5", __doc__ or "", 1000, measure)
