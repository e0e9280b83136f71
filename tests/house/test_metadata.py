"""What an index page, a citation and an installer read of the project."""

import ast
import importlib.util
import re
import sys
import tomllib
import types

import pytest

import eqxgen
from tests.house.layout import CHECKOUT

PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_metadata_name_authors_licence_and_every_python():
    assert PROJECT["license"] == "Apache-2.0"
    assert PROJECT["authors"]
    assert PROJECT["scripts"] == {"eqxgen": "eqxgen._command:main"}
    kinds = "\n".join(PROJECT["classifiers"])
    for kind in ("Typing :: Typed", "Intended Audience :: Science/Research", "3.11", "3.12", "3.13"):
        assert kind in kinds


def test_the_changelog_and_the_citation_have_the_version():
    assert f"## {eqxgen.__version__}" in (CHECKOUT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"version: {eqxgen.__version__}" in (CHECKOUT / "CITATION.cff").read_text(encoding="utf-8")


@pytest.fixture
def standalone(monkeypatch):
    """The function of docs/readme_hook.py, whose base class comes with hatchling."""
    interface = types.ModuleType("hatchling.metadata.plugin.interface")
    interface.MetadataHookInterface = object  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    spec = importlib.util.spec_from_file_location("readme_hook", CHECKOUT / "docs" / "readme_hook.py")
    assert spec is not None and spec.loader is not None  # noqa: PT018
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.standalone


def test_the_readme_of_an_index_page_refers_to_no_file_and_has_the_installed_commands(standalone):
    text = standalone((CHECKOUT / "README.md").read_text(encoding="utf-8"))
    assert not re.findall(r"\]\((?!https:)", text)
    assert 'pip install "eqxgen[train]" && eqxgen maskgit\n' in text
    assert "python -m train" not in text
    assert "How to use attention" in text
    assert standalone("![a](b.png)\n\n[c](https://d.org) [e](f.md)\n") == "[c](https://d.org) e\n"


def test_an_extra_that_an_error_names_exists():
    named = set()
    for package in ("eqxgen", "kernels", "train"):
        for path in (CHECKOUT / package).rglob("*.py"):
            strings = (
                node.value
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                if isinstance(node, ast.Constant)
            )
            named |= {
                extra for text in strings if isinstance(text, str) for extra in re.findall(r"eqxgen\[(\w+)\]", text)
            }
    assert named
    assert named <= set(PROJECT["optional-dependencies"])
