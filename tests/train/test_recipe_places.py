"""Each recipe is in the table of docs/training.md, with its presets."""

import importlib
import re

import pytest

from tests.house.layout import CHECKOUT
from train.engine.recipes import RECIPES

PAGE = (CHECKOUT / "docs" / "training.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| `train\.(\w+)` \| .* \| (.*) \|$", PAGE, re.MULTILINE))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_in_the_docs_with_its_presets(name):
    presets = importlib.import_module(f"train.{name}").PRESETS
    assert name in ROWS, f"docs/training.md has no row of train.{name}: add one to the table of recipes"
    assert ROWS[name].split(", ") == list(presets), (
        f"docs/training.md: presets of train.{name} are {', '.join(presets)}"
    )


def test_the_table_has_no_other_rows():
    assert set(ROWS) == set(RECIPES)
