"""Classes, heads and parts of a classifier that cannot be: cases 131 to 134 of the list of bad inputs."""

import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tests.train.bad_config import flags
from tests.train.bad_input import Case


def labels(what: str, of: list[int], says: str) -> Case:
    """A set with these labels, again and again."""

    def prepare(folder: Path) -> list[str]:
        np.savez(folder / "x.npz", images=np.zeros((120, 8, 8, 1), np.uint8), labels=np.resize(of, 120))
        return ["train.classify", "--run-dir", "run", "--data.name", "./x.npz", "--batch-size", "8"]

    return Case(131, what, prepare, says)


def weights(number: int, what: str, says: str, words: str, **shapes: tuple[int, ...]) -> Case:
    """Weights to start from with arrays of these shapes."""

    def prepare(folder: Path) -> list[str]:
        save_file({name.replace("__", "."): np.zeros(shape, "f") for name, shape in shapes.items()}, folder / "w")
        return ["train.classify", "--run-dir", "run", "--from", "w", *shlex.split(words)]

    return Case(number, what, prepare, says, 2)


def wrong(words: str, says: str, number: int = 134) -> Case:
    return flags(number, words, says, module="train.classify")


def pictures(what: str, make: Callable[[Path], object], says: str, status: int = 1) -> Case:
    """Pictures that a finished run is to classify."""

    def prepare(folder: Path) -> list[str]:
        from train import classify
        from train._files import write_json
        from train.config.base import to_dict
        from train.tasks.facts import ImageFacts

        (folder / "run").mkdir()
        facts = ImageFacts((8, 8, 1), 10, 17).to_record()
        record = {"recipe": "classify", "config": to_dict(classify.PRESETS["digits"]), "facts": facts}
        write_json(folder / "run" / "config.json", record)
        make(folder / "in")
        return ["train.sample", "--run", "run", "--images", "in", "--out", "out.png"]

    return Case(132, what, prepare, says, status)


SMALL = {"model__head__weight": (10, 32), "model__stem__norm__scale": (16,)}
CASES = [
    labels("a class without images", [0, 1, 3], r"expected training images of all 4 classes, got none of class 2 .'2'.*number the labels from 0 without gaps"),
    labels("one class alone", [0], "expected at least 2 classes, got 1"),
    weights(132, "a head of other classes", "--from w: its head must be of the 10 classes of the data: got 3; --new-head gives", "", model__head__weight=(3, 32)),
    pictures("a folder without pictures", lambda path: path.mkdir(), "in: expected a picture or a folder of pictures .*, got none: correct --images"),
    pictures("no folder of pictures", lambda path: None, "in: expected a picture or a folder of pictures .*, got nothing there"),
    weights(133, "a pattern of nothing that is frozen", "--freeze: a path pattern must name something: got 'stack'", "--freeze stack", **SMALL),
    weights(133, "updates of nothing", "--lora.targets: a path pattern must name something: got 'stack'", "--lora.rank 2 --lora.targets stack", **SMALL),
    weights(133, "updates without projections", "--lora.rank 2, of --lora.targets stem: it is for models with projections", "--lora.rank 2 --lora.targets stem", **SMALL),
    weights(133, "updates of too high a rank", "--lora.rank 11, of .* rank must be at most the weight's smaller side, 10: got 11", "--lora.rank 11", **SMALL),
    wrong("--from w --lora.rank 0", "lora.rank must be at least 1: got 0"),
    wrong("--lora.rank 8", "lora.rank goes with --from, which was not given"),
    wrong("--freeze stem", "freeze goes with --from, which was not given"),
    wrong("--new-head", "new_head goes with --from, which was not given"),
    wrong("--mix.mixup -0.1", r"mix\.mixup must be at least 0 and finite: got -0\.1"),
    wrong("--backbone resnext", "--backbone must be one of conv, mage, resnet, vit: got 'resnext'; did you mean resnet"),
    wrong("--backbone mage", "backbone mage goes with --from, a run of train.mage, which was not given"),
    wrong("--backbone mage --from nowhere", "--from nowhere: must be the folder of a run, a .safetensors file or the folder of a published model: there is none"),
    wrong("--backbone mage --from w --normalise clip", "normalise must be none with --backbone mage: got clip"),
    wrong("--backbone mage --from w --vit.registers 2", "--vit.registers goes with --backbone vit, which was not given"),
    wrong("--vit.registers 2", "--vit.registers goes with --backbone vit, which was not given"),
    wrong("--normalise imagenet", "--normalise imagenet: must have images of 3 channels: got 1"),
    wrong("--backbone vit --vit.patch 3", "--vit.patch 3 must divide the sides of the images: got 8 x 8"),
]  # fmt: skip
