"""Skeleton of a recipe: a classifier of images by a model of that name, with a preset, its tests and rows."""

import re

from tests.new.edits import Checkout, module_name
from tests.new.model import model

RECIPE = '''"""Train NAME: one line that says what it learns (author year, arXiv number).

  python -m train.MODULE                                   # digits
  python -m train.MODULE --preset mnist --data.root DATA   # from a folder that has mnist/

Loss: cross-entropy. Writes runs/MODULE-PRESET; summary.json has eval_loss and eval_accuracy on the held-out images.
"""

import dataclasses
from typing import TYPE_CHECKING, Any

from eqxgen.configs import NAMEConfig

from .config.data import DataConfig
from .config.evals import LABELS
from .config.optim import EmaConfig, OptimConfig
from .config.options import option
from .tasks.facts import ImageFacts
from .tasks.images import ImageConfig
from .tasks.labels import labels_recipe

if TYPE_CHECKING:  # jax is imported where it is used, so that --help does not wait for it
    from .engine.recipe import Program


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(ImageConfig):
    """Every flag starts from the preset's value."""

    EVALS = (LABELS,)

    model: NAMEConfig = option(factory=NAMEConfig, first=("width",))
    """The classifier."""


def _preset(name: str, steps: int) -> Config:
    return Config(
        preset=name,
        steps=steps,
        batch_size=64,
        data=DataConfig(name=name),
        optim=OptimConfig(learning_rate=3e-3, warmup=50),
        ema=EmaConfig(decay=0.99),
    )


PRESETS = {"digits": _preset("digits", 300), "mnist": _preset("mnist", 1000)}


ABOUT = {
    "digits": "0.0003 M parameters; 300 steps of 64",
    "mnist": "0.0003 M parameters; 1,000 steps of 64",
}
"""Size, time and the number to expect of each preset, where it was measured."""


def model(config: Config, facts: ImageFacts) -> Any:
    """Initialiser of the released model."""
    from eqxgen.models import NAME

    return lambda key: NAME(facts.shape[2], facts.classes, config.model, key=key)


def program(config: Config, facts: ImageFacts) -> "Program":
    """The model and its loss."""
    import jax
    import jax.numpy as jnp

    from eqxgen.losses.tokens import cross_entropy

    from .engine.recipe import Context, Program, Sums

    def loss(model: Any, batch: dict[str, jax.Array], keys: jax.Array, _: Context) -> Sums:
        logits = jax.vmap(lambda image, key: model(image, key=key))(batch["image"], keys)
        losses, weight = cross_entropy(logits, batch["label"]), batch["weight"]
        correct = (jnp.argmax(logits, axis=-1) == batch["label"]).astype(jnp.float32)
        return Sums(weight @ losses, jnp.sum(weight), {"accuracy": weight @ correct})

    return Program.of(model(config, facts), loss, {"image": (facts.shape, "float32"), "label": ((), "int32")})


RECIPE = labels_recipe("MODULE", "NAME", Config, PRESETS, model, program, released=lambda net, _: net)
main = RECIPE.main

if __name__ == "__main__":
    RECIPE.command(__doc__, ABOUT)
'''

TEST = '''"""The recipe MODULE: a short run, and its released model."""

import dataclasses
import json

import train
from eqxgen.models import NAME
from train import MODULE


def test_a_short_run_writes_its_model_and_its_numbers(tmp_path):
    values = {"steps": 2, "batch_size": 8, "checkpoint_every": 2, "sample_every": 0}
    config = dataclasses.replace(MODULE.PRESETS["digits"], run_dir=str(tmp_path), **values)
    assert MODULE.main(config) == 0
    assert isinstance(train.load(tmp_path / "model.safetensors"), NAME)
    assert 0 <= json.loads((tmp_path / "summary.json").read_text())["eval_accuracy"] <= 1
'''


def recipe(checkout: Checkout, name: str) -> str:
    """Writes the skeleton of a recipe, and of its model where there is none; gives pytest's arguments."""
    module = module_name(name)
    models = re.findall(r'"(\w+)"', checkout.text("eqxgen/models/__init__.py").partition("__all__")[2])
    title = next((found for found in models if found.lower() == module), module.capitalize())
    if "_" in module:
        raise ValueError(f"NAME must be that of its family, without underscores: got {name!r}")
    fill = lambda text: text.replace("NAME", title).replace("MODULE", module)
    checkout.create(f"train/{module}.py", fill(RECIPE))
    checkout.create(f"tests/train/test_{module}.py", fill(TEST))
    if not checkout.has(f"eqxgen/models/{module}.py"):
        model(checkout, title)
    checkout.add_name("train/engine/recipes.py", "RECIPES", module)
    row = f"| `train.{module}` | one line that says what it trains | digits, mnist |"
    checkout.add_table_row("docs/training.md", "| recipe |", row)
    return f"tests/train/test_{module}.py tests/train/test_recipes.py tests/train/test_help.py -k {module}"
