"""Skeletons of `python -m tests.new` pass their tests at once, in a copy of the checkout; wrong names change nothing."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.full import full
from tests.house.layout import CHECKOUT, PACKAGES
from tests.new.__main__ import main
from tests.new.edits import Checkout
from tests.new.model import model
from tests.new.recipe import recipe

KINDS = [("layer", "ChannelScale"), ("model", "ToyNet"), ("recipe", "tinynet"), ("sampler", "one_pass")]
ROWS = [
    "tests/nn/test_layers.py::test_a_layer_compiles_maps_scans_saves_and_is_deterministic[ChannelScale]",
    "tests/nn/test_layers.py::test_no_two_tables_name_a_row_alike",
    "tests/nn/test_layers_channel_scale.py",
    "tests/nn/test_layer_places.py",
    "tests/nn/test_layer_inputs.py::test_a_batch_without_vmap_is_taken_whole_or_an_error_with_the_hint[ChannelScale]",
    "tests/models/test_models.py::test_the_output_has_its_shape_and_is_finite[ToyNet]",
    "tests/models/test_models.py::test_gradients_are_finite_and_every_parameter_has_one[Tinynet-float32]",
    "tests/house/test_models_page.py::test_the_page_names_every_model",
    "tests/house/test_models_page.py::test_the_page_names_every_module_of_samplers",
    "tests/house/test_layout.py::test_a_file_of_train_is_a_recipe_or_a_command",
    "tests/house/test_layout.py::test_a_family_has_one_name_in_every_folder",
    "tests/train/test_tinynet.py",
    "tests/train/test_recipe_places.py",
    "tests/train/test_recipes.py::test_the_list_has_every_recipe_of_the_folder",
    "tests/train/test_help.py::test_every_preset_has_a_line_with_its_size[tinynet]",
    "tests/decoding/test_one_pass.py",
]


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """The checkout without what no test of a skeleton reads."""
    folder = tmp_path_factory.mktemp("checkout")
    ignore = shutil.ignore_patterns("__pycache__", "results", "*.npz", "*.png")
    for name in (*PACKAGES, "docs"):
        shutil.copytree(CHECKOUT / name, folder / name, ignore=ignore)
    for name in ("pyproject.toml", "mkdocs.yml", "README.md"):
        shutil.copy(CHECKOUT / name, folder / name)
    for kind, name in KINDS:
        assert main([kind, name], folder) == 0
    return folder


@full
def test_the_tests_of_every_skeleton_pass_at_once(copy):
    line = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", *ROWS]
    env = {**os.environ, "PYTHONPATH": str(copy)}
    done = subprocess.run(line, cwd=copy, env=env, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout[-4000:]


def test_the_linter_finds_nothing_in_the_skeletons(copy):
    ruff = shutil.which("ruff", path=os.path.dirname(sys.executable))
    if ruff is None:
        pytest.skip("ruff is not installed (group `lint`)")
    for command in (["check", "-q"], ["format", "--check", "-q"]):
        done = subprocess.run([ruff, *command, "."], cwd=copy, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_a_recipe_takes_the_model_of_its_name():
    checkout = Checkout(CHECKOUT)
    model(checkout, "ToyNet")
    recipe(checkout, "toynet")
    assert "from eqxgen.models import ToyNet" in checkout.new["train/toynet.py"]
    assert sum(path.startswith("eqxgen/models/") for path in checkout.new) == 2


WRONG = [
    (["layer"], "usage: python -m tests.new layer|model|recipe|sampler NAME: got layer"),
    (["widget", "X"], "usage: "),
    (["layer", "channel_scale"], "NAME must be that of a class, such as ChannelScale: got 'channel_scale'"),
    (["recipe", "TinyNet"], "NAME must be in lower case, such as one_pass: got 'TinyNet'"),
    (["recipe", "tiny_net"], "NAME must be that of its family, without underscores: got 'tiny_net'"),
    (["layer", "Linear"], "NAME must be new: eqxgen/nn/linear.py exists; choose another name"),
    (["sampler", "beam"], "NAME must be new: eqxgen/decoding/beam.py exists"),
    (["model", "MaskGIT"], "NAME must be new: eqxgen/configs/maskgit.py exists"),
]


@pytest.mark.parametrize(("words", "says"), WRONG)
def test_a_wrong_name_is_one_line_and_changes_nothing(words, says, monkeypatch, capsys):
    monkeypatch.setattr(Checkout, "write", lambda self: pytest.fail("a file is written"))
    assert main(words, CHECKOUT) == 2
    assert says in capsys.readouterr().err
