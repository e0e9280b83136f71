"""Run folders and checkpoints that cannot be used: cases 93 to 95 and 114 to 125 of the list of bad inputs."""

import dataclasses
import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import numpy as np

from tests.train.bad_input import Case
from tests.train.small_runs import TINY
from train import maskgit
from train.checkpoint import Checkpoints
from train.checkpoint.manifest import NAME, VERSION, seal
from train.config.optim import EmaConfig
from train.engine.step import Setup, abstract_state
from train.parallel import make_mesh
from train.run.folder import RunFolder
from train.run.lock import locked
from train.tasks.facts import TokenFacts

STEP = 3
TENSOR = "model.norm.scale"
FACTS = TokenFacts((8, 8, 1), classes=10, tokens=64, codes=17)
FLAGS = {"dim": TINY.dim, "heads": TINY.heads, "depth": TINY.depth, "hidden-dim": TINY.hidden_dim}


def line(*more: str, **changed: int) -> list[str]:
    """The command of the run that `made` makes, with some of its sizes changed."""
    sizes = [word for name, value in (FLAGS | changed).items() for word in (f"--model.{name}", str(value))]
    return ["train.maskgit", "--run-dir", "run", "--batch-size", "8", "--steps", "6", *sizes, *more]


@functools.cache
def made() -> Path:
    """A folder with a run that has one checkpoint, of zeros; nothing is compiled for it."""
    parent = Path(tempfile.mkdtemp(prefix="eqxgen-bad-"))
    preset = maskgit.PRESETS["digits"]
    model = dataclasses.replace(
        preset.model, dim=TINY.dim, heads=TINY.heads, depth=TINY.depth, hidden_dim=TINY.hidden_dim
    )
    config = dataclasses.replace(preset, run_dir=str(parent / "run"), batch_size=8, steps=6, model=model)
    with RunFolder.open(config, "maskgit") as run:
        run.describe(FACTS.to_record())
        save(run.path, state(config))
    return parent / "run"


def state(config: maskgit.Config) -> Any:
    mesh = make_mesh(devices=jax.devices()[:1])
    shapes = abstract_state(Setup.of(config, maskgit.RECIPE.program(config, FACTS), mesh, on_cpu=True))
    return jax.tree.map(
        lambda x: jax.device_put(np.zeros(x.shape, x.dtype)) if isinstance(x, jax.ShapeDtypeStruct) else x, shapes
    )


def save(folder: Path, state: Any) -> None:
    checkpoints = Checkpoints(folder / "checkpoints", 2, json.loads((folder / "config.json").read_text()))
    checkpoints.save(STEP, state)
    checkpoints.close()


def broken(change: Callable[[Path], object], *more: str) -> Callable[[Path], list[str]]:
    """The run with its checkpoint changed."""

    def prepare(folder: Path) -> list[str]:
        shutil.copytree(made(), folder / "run")
        change(folder / "run" / "checkpoints" / str(STEP))
        return line(*more)

    return prepare


def cut(name: str, size: int | None) -> Callable[[Path], list[str]]:
    """With one file shortened to a size, or deleted."""

    def change(step: Path) -> None:
        data = (step / name).read_bytes()
        (step / name).unlink()
        if size is not None:
            (step / name).write_bytes(data[:size])

    return broken(change, "--strict")


def flipped(name: str) -> Callable[[Path], list[str]]:
    def change(step: Path) -> None:
        data = bytearray((step / name).read_bytes())
        data[len(data) // 2] ^= 1
        (step / name).write_bytes(bytes(data))

    return broken(change, "--strict")


def of_format(version: int) -> Callable[[Path], None]:
    """A manifest of another format, with the right sum."""

    def change(step: Path) -> None:
        values = json.loads((step / NAME).read_text())
        del values["sum"]
        values["version"] = version
        total = hashlib.sha256(json.dumps(values, indent=0).encode()).hexdigest()
        (step / NAME).write_text(json.dumps(values | {"sum": total}, indent=0))

    return change


def swapped(step: Path) -> None:
    """Two tensors of one shape in each other's place."""
    first, second = step / "state" / "model.norm.scale", step / "state" / "ema.0.norm.scale"
    first.rename(step / "x")
    second.rename(first)
    (step / "x").rename(second)
    (first / "0").write_bytes(b"\x01" + (first / "0").read_bytes()[1:])


def resealed(step: Path) -> None:
    """Without one tensor, under a manifest that is right."""
    shutil.rmtree(step / "state" / TENSOR)
    (step / NAME).unlink()
    seal(step, STEP)


def recorded(change: Callable[[dict], object]) -> Callable[[Path], list[str]]:
    """With another record, under a manifest that is right."""

    def edit(step: Path) -> None:
        path = step / "record" / "metadata"
        record = json.loads(path.read_text())
        change(record)
        path.write_text(json.dumps(record))
        (step / NAME).unlink()
        seal(step, STEP)

    return broken(edit)


def saved_again(**changes: Any) -> Callable[[Path], list[str]]:
    """With the state of another config in it, as if the code had changed."""

    def change(step: Path) -> None:
        shutil.rmtree(step)
        config = maskgit.PRESETS["digits"]
        model = {
            "dim": TINY.dim,
            "heads": TINY.heads,
            "depth": TINY.depth,
            "hidden_dim": TINY.hidden_dim,
        } | changes.pop("model", {})
        config = dataclasses.replace(
            config, batch_size=8, steps=6, model=dataclasses.replace(config.model, **model), **changes
        )
        save(step.parent.parent, state(config))

    return broken(change)


def held(folder: Path) -> list[str]:
    """The run while another writer has it."""
    shutil.copytree(made(), folder / "run")
    HELD.enter_context(locked(folder / "run"))
    return line()


HELD = ExitStack()


def file_in_the_way(folder: Path) -> list[str]:
    (folder / "run").write_text("")
    return line()


def links_in_a_circle(folder: Path) -> list[str]:
    (folder / "run").symlink_to(folder / "other")
    (folder / "other").symlink_to(folder / "run")
    return line()


def other_files(folder: Path) -> list[str]:
    (folder / "run").mkdir()
    (folder / "run" / "thesis.tex").write_text("precious")
    return line()


def copied(*more: str, **changed: int) -> Callable[[Path], list[str]]:
    """The run as it is, and another command."""

    def prepare(folder: Path) -> list[str]:
        shutil.copytree(made(), folder / "run")
        return line(*more, **changed)

    return prepare


def renamed(step: Path) -> None:
    step.rename(step.with_name("5"))


FILE = f"state/{TENSOR}/0"

CASES = [
    Case(93, "the run folder is a file", file_in_the_way, "--run-dir run: cannot be written: .*give another"),
    Case(93, "the run folder cannot be written", lambda folder: ["train.maskgit", "--run-dir", "/proc/run"], "--run-dir /proc/run: cannot be written"),
    Case(93, "the run folder is a circle of links", links_in_a_circle, "--run-dir run: cannot be written"),
    Case(93, "the run folder holds other files", other_files, r"--run-dir run: holds files but no config\.json, so it is not a run: give an empty"),
    Case(93, "the run folder holds another run", copied("--optim.beta1", "0.5"), "holds a run with another config .--optim.beta1 was 0.9 and is 0.5.*give another folder"),
    Case(94, "there is no flag to resume", copied("--resume"), "--resume: no such flag", 2),
    Case(95, "the model's sizes changed", copied(dim=32, depth=1), "another config .--model.depth was 2 and is 1, --model.dim was 16 and is 32"),
    Case(95, "the checkpoint is of another config", recorded(lambda r: r["config"]["model"].update(dim=32)), "checkpoint .*/3: is of another config .--model.dim was 32 and is 16"),
    Case(95, "the checkpoint is of another recipe", recorded(lambda r: r.update(recipe="vqgan")), r"checkpoint .*/3: is of train\.vqgan, not of train\.maskgit"),
    Case(114, "a run without a model", lambda folder: [shutil.copytree(made(), folder / "run"), ["train.sample", "--run", "run"]][1], r"model\.safetensors: no such file"),
    Case(115, "a tensor's file is missing", cut(FILE, None), f"/3 is damaged: file {FILE} is missing, of tensor {TENSOR}; without --strict"),
    Case(115, "a tensor's file is empty", cut(FILE, 0), f"file {FILE} has 0 bytes, expected .*, of tensor {TENSOR}"),
    Case(115, "a tensor's file is truncated", cut(FILE, 9), f"file {FILE} has 9 bytes, expected .*, of tensor {TENSOR}"),
    Case(115, "a bit of a tensor is flipped", flipped(FILE), f"file {FILE} was altered: SHA-256 .*, expected .*, of tensor {TENSOR}"),
    Case(115, "the record is missing", cut("record/metadata", None), "file record/metadata is missing"),
    Case(115, "a bit of the manifest is flipped", flipped(NAME), "file manifest.json was altered"),
    Case(115, "the manifest is empty", cut(NAME, 0), "file manifest.json was altered"),
    Case(115, "the manifest is missing", cut(NAME, None), "file manifest.json is missing"),
    Case(115, "no checkpoint is whole", broken(lambda step: (step / FILE).unlink()), f"none of the 1 checkpoints is whole .the newest: file {FILE} is missing.*remove the folder"),
    Case(116, "a file is not in the manifest", broken(lambda step: (step / "state" / "extra").write_text("x"), "--strict"), "file state/extra is not in the manifest"),
    Case(116, "a tensor is not in the checkpoint", broken(resealed), f"checkpoint .*/3: array {TENSOR} is missing|none of the 1"),
    Case(117, "the leaves have another shape", saved_again(model={"hidden_dim": 48}), r"array .*mlp.* must be float32\[.*: got float32\[.*--model"),
    Case(117, "the state has other leaves", saved_again(ema=EmaConfig(sigma_rel=(0.05, 0.1))), r"array ema\.1\..* is not of this model; .*--ema"),
    Case(118, "the optimiser is another", saved_again(optim=dataclasses.replace(maskgit.PRESETS["digits"].optim, name="lion")), r"array opt_state\..* --optim\.name"),
    Case(120, "the folder's name is of another step", broken(renamed, "--strict"), "/5 is damaged: it is of step 3, not 5"),
    Case(121, "the format is of a later version", broken(of_format(VERSION + 1)), f"/3: is in format {VERSION + 1}, and this eqxgen reads format {VERSION}: use the version that wrote it"),
    Case(122, "two tensors are in each other's place", broken(swapped, "--strict"), r"was altered.*of tensor ema\.0\.norm\.scale|was altered.*of tensor model\.norm\.scale"),
    Case(124, "another process writes the run", held, f"--run-dir run: is being written by process {os.getpid()} on .*: wait until it ends"),
]  # fmt: skip
