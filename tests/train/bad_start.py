"""Weights to start from, evaluators and model state that cannot be: cases 126 to 130 of the list of bad inputs."""

import dataclasses
import json
import shlex
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import save_file

from eqxgen.configs import ResNetConfig
from tests.train.bad_config import flags
from tests.train.bad_input import Case
from train import classify
from train.checkpoint import Checkpoints
from train.config.base import to_dict
from train.engine.step import Setup, abstract_state
from train.parallel import make_mesh
from train.run.folder import RunFolder
from train.tasks.facts import ClassifierFacts

FACTS = ClassifierFacts((8, 8, 1), 10, 17)
SIZES = "--model.dim 16 --model.heads 2 --model.depth 1 --model.hidden-dim 32"


def weights(number: int, what: str, make: Callable[[Path], object], says: str, more: str = "", status: int = 2) -> Case:
    """`--from w`, a path that `make` has filled."""

    def prepare(folder: Path) -> list[str]:
        make(folder / "w")
        return ["train.maskgit", "--run-dir", "run", "--from", "w", *shlex.split(f"{SIZES} {more}")]

    return Case(number, what, prepare, says, status)


def arrays(**shapes: tuple[int, ...]) -> Callable[[Path], None]:
    """A file of zeros, with two underscores for a dot."""
    return lambda path: save_file({name.replace("__", "."): np.zeros(s, "f") for name, s in shapes.items()}, path)


def of_family(recipe: str) -> Callable[[Path], None]:
    return lambda path: save_file({"a": np.zeros(1, "f")}, path, metadata={"eqxgen": json.dumps({"recipe": recipe})})


def folder_of(**config: object) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.mkdir()
        (path / "config.json").write_text(json.dumps(config))

    return make


def one_class(folder: Path) -> list[str]:
    np.savez(folder / "one.npz", images=np.zeros((64, 8, 8, 3), np.uint8), labels=np.zeros(64, int))
    return ["train.vqgan", "--run-dir", "run", *shlex.split("--data.name ./one.npz --batch-size 8 --evals classifier")]


def other_state(folder: Path) -> list[str]:
    """A checkpoint whose statistics of batch norms have another shape."""
    config = dataclasses.replace(
        classify.PRESETS["digits"], run_dir=str(folder / "run"), model=ResNetConfig(width=8, multipliers=(1,), blocks=1)
    )
    setup = Setup.of(config, classify.program(config, FACTS), make_mesh(devices=jax.devices()[:1]), on_cpu=True)
    shapes = abstract_state(setup)
    zero = lambda x, *more: jax.device_put(np.zeros((*x.shape, *more), x.dtype)) if hasattr(x, "shape") else x
    zeros = jax.tree.map(zero, shapes)
    zeros = dataclasses.replace(zeros, state=jax.tree.map(lambda x: zero(x, 2), shapes.state))
    with RunFolder.open(config, "classify") as run:
        run.describe(FACTS.to_record())
        checkpoints = Checkpoints(run.path / "checkpoints", 2, {"recipe": "classify", "config": to_dict(config)})
        checkpoints.save(3, zeros)
        checkpoints.close()
    words = "--run-dir run --model.width 8 --model.multipliers 1 --model.blocks 1"
    return ["train.classify", *shlex.split(words)]


TABLE = "embedding.weight"

CASES = [
    flags(126, "--evals clasifier", "evals must be of held_out, classifier, fidelity, cas, none: got 'clasifier': did you mean classifier"),
    Case(126, "an evaluator of classes, for images of one class", one_class, "--evals classifier must have data for it: the images have one class; leave it out", 2),
    Case(127, "model state of another shape in a checkpoint", other_state, r"checkpoints/3: array state\..* must be float32\[8\]: got float32\[8, 2\]; were --model's sizes"),
    weights(128, "weights that are not there", lambda path: None, "--from w: must be the folder of a run, a .safetensors file or .*: there is none"),
    weights(128, "weights that are no safetensors", lambda path: path.write_bytes(b"\xff" * 64), "--from w: this file is damaged", status=1),
    weights(128, "weights of another recipe", of_family("vqgan"), r"--from w: is the model of a run of train\.vqgan: give one of train\.maskgit"),
    weights(128, "weights of which none fits", arrays(a=(3,)), r"--from w: must have arrays of train\.maskgit's model, such as .*: got none, and first a"),
    weights(129, "weights of another width", arrays(norm__scale=(17,)), r"--from w: array model\.norm\.scale must be float32\[16\]: got float32\[17\]; give train\.maskgit the sizes"),
    weights(129, "weights that are integers", lambda path: save_file({"norm.scale": np.zeros(16, "i")}, path), r"array model\.norm\.scale must be float32\[16\]: got int32\[16\]"),
    weights(130, "a folder without weights", folder_of(), "--from w: must be the folder of a run"),
    weights(130, "a published model of another family", folder_of(model_type="gpt2"), r"--from w: model_type must be one of train\.maskgit: got 'gpt2'; published models that are read: gpt2 .train\.gpt"),
    weights(130, "a run of another recipe", folder_of(recipe="gpt", config={}), r"--from w: is the model of a run of train\.gpt"),
    weights(130, "a run without a best model", folder_of(recipe="maskgit", config={}), r"--from w: the run has no best\.safetensors", "--from-weights best"),
    weights(130, "a run without a checkpoint", folder_of(recipe="maskgit", config={}), "--from w: the run has no checkpoint for --from-weights last", "--from-weights last"),
    weights(130, "the best of a file", arrays(norm__scale=(16,)), "--from-weights best goes with the folder of a run: got --from w", "--from-weights best"),
    flags(130, "--from-weights last", "from_weights goes with --from, which was not given"),
    flags(130, "--from ''", "from must be a path: got ''"),
]  # fmt: skip
