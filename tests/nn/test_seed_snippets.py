"""The printed examples of layers run, and are the seeds' own."""

import inspect
import re
import runpy
import subprocess
import sys

import equinox as eqx
import pytest

import eqxgen
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
    ours = [block for block in BLOCKS if "watching" not in block]
    assert [statements(block) for block in ours[: len(theirs)]] == theirs


def test_the_catalogue_has_every_layer():
    rows = [line for line in DOCS.partition("## Catalogue")[2].splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert len(named) == len(set(named))
    assert not set(nn.__all__) - set(named)


def test_the_table_from_equinox_names_layers_and_arguments_of_both():
    rows = [row.split("|")[1:3] for row in DOCS.partition("## From `equinox.nn`")[2].partition("\n## ")[0].splitlines()]
    rows = [row for row in rows if len(row) == 2 and "`" in row[0] and "nn`" not in row[0]]
    assert len(rows) > 15
    for row in rows:
        for package, cell in zip((eqx.nn, nn), row):
            for name, arguments in re.findall(r"`([A-Z]\w+)(?:\((\w[\w, ]*)\))?`", cell):
                takes = inspect.signature(getattr(package, name)).parameters
                assert not set(re.findall(r"\w\w+", arguments)) - set(takes), (name, arguments)


def test_the_front_door_has_public_names_only():
    code = "import eqxgen, sys; print(*dir(eqxgen)); assert 'jax' not in sys.modules; "
    code += "print(eqxgen.nn.GRU, eqxgen.ops, eqxgen.models)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    names, modules = done.stdout.splitlines()
    public = "RNG __version__ check_keys check_tree configs decoding losses metrics models nn ops pretrained summary"
    assert sorted(names.split()) == sorted(public.split())
    assert all(name in modules for name in ("eqxgen.nn.recurrent.GRU", "eqxgen.ops", "eqxgen.models"))
    with pytest.raises(AttributeError, match="module 'eqxgen' has no attribute 'layers'"):
        eqxgen.layers  # noqa: B018
