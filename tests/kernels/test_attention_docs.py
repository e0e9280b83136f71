"""The code in docs/attention.md runs unchanged."""

import ast
import importlib.util
import re
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "attention.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def imported(code: str) -> set[str]:
    """The top-level packages that a snippet imports."""
    nodes = list(ast.walk(ast.parse(code)))
    names = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    names += [node.module for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
    return {name.split(".")[0] for name in names}


def test_there_is_a_snippet_for_each_framework():
    packages = set().union(*map(imported, SNIPPETS))
    assert {"equinox", "flax", "haiku", "jax", "eqxgen"} <= packages


@pytest.mark.parametrize(
    "code",
    SNIPPETS,
    ids=lambda code: "-".join(sorted(imported(code) - {"eqxgen", "jax", *sys.stdlib_module_names})) or "jax",
)
def test_a_snippet_runs(code, tmp_path):
    missing = sorted(name for name in imported(code) if importlib.util.find_spec(name) is None)
    if missing:
        pytest.skip(f"{' and '.join(missing)} is not installed")
    # A module of its own: dataclasses look up the one that they are defined in.
    path = tmp_path / "attention_snippet.py"
    path.write_text(code, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("attention_snippet", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    results = [getattr(module, name) for name in ("out", "y", "gradient") if hasattr(module, name)]
    assert results, "a snippet ends in a result: out, y or gradient"
