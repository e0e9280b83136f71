"""The blocks of docs/models.md run from top to bottom, and its tables name every model and sampler."""

import jax
import numpy as np

from eqxgen import models
from tests.house.layout import CHECKOUT
from tests.house.pages import run_blocks

PAGE = (CHECKOUT / "docs" / "models.md").read_text(encoding="utf-8")


def table(header: str) -> str:
    """The rows of a Markdown table below its header line."""
    return PAGE.partition(f"\n| {header}")[2].partition("\n\n")[0]


def test_the_blocks_run_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    found = run_blocks("models", tmp_path)
    assert "MaskGIT" in capsys.readouterr().out
    assert found["shapes"].embedding.weight.shape == (1024 + 1 + 1000 + 1, 768)
    assert found["losses"][-1] < 0.6 * found["losses"][0]
    assert found["drawn"].shape == (16,)
    assert found["batch"].shape == (4, 16)
    known = ~np.asarray(found["inside"])
    for name in ("filled", "edited"):
        np.testing.assert_array_equal(found[name][known], found["images"][0][known])
    assert bool(found["same"])
    assert found["y"].shape == (17, 32)
    assert 0 < found["trained"] < sum(x.size for x in jax.tree.leaves(found["grads"])) + 1
    assert jax.tree.structure(found["merged"]) == jax.tree.structure(found["model"])


def test_the_page_names_every_model():
    missing = [name for name in models.__all__ if f"`{name}`" not in table("model |")]
    assert not missing, f"docs/models.md has no row of {', '.join(missing)}: add one to the table of models"


def test_the_page_names_every_module_of_samplers():
    rows = table("sampler of")
    parts = {"logits", "memory", "numbers", "stopping", "traced"}  # what samplers are made of
    modules = {path.stem for path in (CHECKOUT / "eqxgen" / "decoding").glob("[a-z]*.py")} - parts
    missing = [name for name in sorted(modules) if f"`{name}." not in rows]
    assert not missing, f"docs/models.md has no row of {', '.join(missing)}: add one to the table of samplers"
