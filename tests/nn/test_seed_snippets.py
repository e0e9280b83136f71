"""The printed examples of layers run, and are the seeds' own."""

import re
import runpy

import pytest

from eqxgen import nn
from eqxgen.rng import KeyReuse
from tests.train.test_toolkit import ROOT, SEED, statements

DOCS = (ROOT / "docs" / "layers.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", DOCS, re.MULTILINE | re.DOTALL)


def test_the_examples_run_from_top_to_bottom(tmp_path, capsys, recwarn):
    path = tmp_path / "layers.py"
    path.write_text("\n".join(BLOCKS), encoding="utf-8")
    found = runpy.run_path(str(path))
    assert found["attention"].causal
    assert (found["y"].shape, found["features"].shape, found["tokens"].shape) == ((10,), (16,), (5, 16))
    assert "6 × TransformerBlock" in capsys.readouterr().out
    assert not [warning for warning in recwarn if issubclass(warning.category, KeyReuse)]


def test_the_examples_are_the_seeds_as_printed_but_for_imports():
    if not SEED.is_file():
        pytest.skip(f"there is no {SEED}; set EQXGEN_SEEDS to its folder")
    printed = re.findall(r"```python\n(.*?)```", SEED.read_text(encoding="utf-8"), re.DOTALL)
    theirs = [statements(block) for block in printed if "@ddp" not in block]
    assert len(theirs) == 7
    assert [statements(block) for block in BLOCKS[: len(theirs)]] == theirs


def test_the_catalogue_has_every_layer():
    rows = [line for line in DOCS.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert len(named) == len(set(named))
    assert not set(nn.__all__) - set(named)
