"""Commands and code of the README run."""

import dataclasses
import json
import re
import runpy
import shlex
from pathlib import Path

import pytest

from tests.full import full
from train import data, maskgit, sample, vqgan
from train.config import base as configs
from train.config import flags
from train.data import load

README = (Path(__file__).parents[2] / "README.md").read_text()
COMMANDS = [line.split("#")[0].strip() for line in README.splitlines() if line.startswith("    python -m train.")]
MODULES = {"train.maskgit": maskgit, "train.vqgan": vqgan}
# Two small steps without evaluators, which test_commands.py runs: the sizes are not what is tested here.
SMALL = {
    "train.vqgan": "--steps 2 --batch-size 8 --model.width 8 --model.blocks 1 --model.codes 16 --evals none",
    "train.maskgit": "--steps 2 --batch-size 8 --model.dim 16 --model.heads 2 --model.depth 1 --model.hidden-dim 32 "
    "--evals none",
}


def test_the_readme_shows_the_commands():
    assert [shlex.split(command)[2] for command in COMMANDS[:3]] == ["train.vqgan", "train.maskgit", "train.sample"]
    assert 'pip install -e ".[train]" && python -m train.maskgit' in README
    assert "pip install nox && nox -s tests" in README


@pytest.mark.parametrize("command", [line for line in COMMANDS if "--help" not in line])
def test_every_flag_of_a_command_is_one(command):
    module, *words = shlex.split(command)[2:]
    if module == "train.sample":
        assert flags.parse(maskgit.RECIPE.sample, "sample", "", words).label == 7
        return
    recipe = MODULES[module]
    assert configs.parse(module.removeprefix("train."), recipe.Config, recipe.PRESETS, "", words)


def _few(config, **options):
    """A data set with its first 80 images of each part."""
    data = load(config, **options)
    names = ("train_images", "train_labels", "test_images", "test_labels")
    return dataclasses.replace(data, **{name: getattr(data, name)[:80] for name in names})


@full
def test_the_commands_run_one_after_another(tmp_path, monkeypatch, shared_data):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(data, "load", _few)
    for command in COMMANDS:
        module, *words = shlex.split(command.replace("DATA", str(shared_data)))[2:]
        if "--help" in words or "--dry-run" in words:
            continue  # test_commands.py, the dry run too; for v5e:2x4 `nox -s tpu`
        if module == "train.sample":
            assert sample.main(words) == 0
            assert (tmp_path / "sevens.png").exists()
            continue
        recipe = MODULES[module]
        words += shlex.split(SMALL[module])
        config = configs.parse(module.removeprefix("train."), recipe.Config, recipe.PRESETS, "", words)
        assert recipe.main(config) == 0
    assert (tmp_path / "runs" / "maskgit-mnist" / "summary.json").exists()


def test_the_attention_example_runs(tmp_path):
    (source,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in source.splitlines() if line.strip()]) <= 14
    path = tmp_path / "example.py"
    path.write_text(source)
    assert runpy.run_path(str(path))["y"].shape == (2, 1000, 512)


def test_every_figure_of_the_readme_is_of_a_committed_run():
    results = Path(__file__).parents[2] / "bench" / "results" / "cpu" / "runs"
    summaries = {path.stem: json.loads(path.read_text()) for path in results.glob("*.json")}
    assert {"maskgit-digits", "vqgan-mnist", "maskgit-mnist"} <= summaries.keys()
    for name, wanted in {
        "maskgit-digits": ["sample_accuracy"],
        "vqgan-mnist": ["psnr"],
        "maskgit-mnist": ["sample_accuracy", "classifier_accuracy"],
    }.items():
        for key in wanted:
            value = summaries[name][key]
            shown = f"{value:.1f} dB" if key == "psnr" else f"{100 * value:.1f} %"
            assert shown in README, f"{name}: {key} is {value}"
