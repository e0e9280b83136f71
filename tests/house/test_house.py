"""The house rules that a reader of one file cannot see: where imports point, and what is never written."""

import ast
import functools
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
PACKAGES = ("kernels", "eqxgen", "train", "bench", "tests")
# What each package may import of our own.
OURS = {
    "kernels": {"kernels"},
    "eqxgen": {"eqxgen"},
    "train": {"train", "eqxgen"},
    "bench": set(PACKAGES),
    "tests": set(PACKAGES),
}
DOOR = "eqxgen/ops.py"
BANNED_CALLS = {
    "eval": "runs text as code",
    "exec": "runs text as code",
    "yaml.load": "builds any object",
    "torch.load": "may unpickle",
    "os.system": "runs a shell",
    "extractall": "writes outside its folder",
}
BANNED_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
BANNED_ARGUMENTS = {("shell", True), ("allow_pickle", True), ("weights_only", False), ("trust_remote_code", True)}


def python_files() -> Iterator[tuple[str, str]]:
    """Path below the checkout, and source."""
    for package in PACKAGES:
        for path in sorted((CHECKOUT / package).rglob("*.py")):
            yield path.relative_to(CHECKOUT).as_posix(), path.read_text(encoding="utf-8")


@functools.lru_cache(maxsize=1)
def nodes(tree: ast.AST) -> tuple[ast.AST, ...]:
    """All nodes, gathered once for the rules of a file."""
    return tuple(ast.walk(tree))


def imports(path: str, tree: ast.AST) -> Iterator[tuple[int, str, bool]]:
    """Line, absolute module, and whether it was written relatively, for every import at any depth and in
    `import_module("...")`.
    """
    package = path.split("/")[:-1]
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, False
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            yield node.lineno, ".".join([*base, *([node.module] if node.module else [])]), bool(node.level)
        elif isinstance(node, ast.Call) and dotted(node.func).endswith("import_module") and node.args:
            name = node.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str) and not name.value.startswith("."):
                yield node.lineno, name.value, False


def dotted(node: ast.expr) -> str:
    """`a.b.c` of a name or an attribute; `.c` of an attribute of anything else."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def imports_point_one_way(path: str, tree: ast.AST) -> Iterator[str]:
    package = path.split("/")[0]
    for line, module, relative in imports(path, tree):
        top = module.split(".")[0]
        if package == "kernels":
            allowed = {"jax", "numpy", "jaxtyping", "kernels", "jax_triton", "triton"} | set(sys.stdlib_module_names)
            if top not in allowed or (top == "kernels" and not relative):
                yield f"{line}: kernels may import jax, its numpy, jaxtyping and itself relatively, got {module}"
        elif top in PACKAGES and top not in OURS[package] and not (path == DOOR and top == "kernels"):
            yield f"{line}: {package} may import of ours {sorted(OURS[package])}, got {module}"


def annotations_stay_values(path: str, tree: ast.AST) -> Iterator[str]:
    for node in nodes(tree):
        if (
            isinstance(node, ast.ImportFrom)
            and node.module == "__future__"
            and any(alias.name == "annotations" for alias in node.names)
        ):
            yield f"{node.lineno}: this import switches the run-time type checker off"


def nothing_runs_foreign_code(path: str, tree: ast.AST) -> Iterator[str]:
    for line, module, _ in imports(path, tree):
        if module.split(".")[0] in BANNED_MODULES:
            yield f"{line}: {module} can run any code that a file holds"
    for node in nodes(tree):
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        for banned, reason in BANNED_CALLS.items():
            if name == banned or (banned == "extractall" and name.endswith(".extractall")):
                yield f"{node.lineno}: {name} {reason}"
        for keyword in node.keywords:
            if isinstance(keyword.value, ast.Constant) and (keyword.arg, keyword.value.value) in BANNED_ARGUMENTS:
                yield f"{node.lineno}: {keyword.arg}={keyword.value.value}"


def addresses_are_https(path: str, tree: ast.AST) -> Iterator[str]:
    for node in nodes(tree):
        if (
            not path.startswith("tests/")
            and isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and "http://" in node.value
        ):
            yield f"{node.lineno}: an address that is not HTTPS"


# Where whatever goes wrong in another's library must lead on to the next backend, or the next column of a table, with
# the reason kept.
KEEPS_GOING = ("kernels/_trial.py", "tests/nn/layer_meshes.py", "tests/kernels/op_meshes.py", "bench/race.py")


def errors_are_named(path: str, tree: ast.AST) -> Iterator[str]:
    if path in KEEPS_GOING:
        return
    for node in nodes(tree):
        if isinstance(node, ast.ExceptHandler):
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            wide = node.type is None or any(
                isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException") for kind in kinds
            )
            # To clean up and raise again hides nothing.
            if wide and not (node.body and isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None):
                yield f"{node.lineno}: catches every error"


def no_module_shadows_the_standard_library(path: str, tree: ast.AST) -> Iterator[str]:
    """A script's own folder comes first on the path, so `eqxgen/types.py` would stand before `types` in `python
    eqxgen/x.py`.
    """
    parts = path.removesuffix(".py").split("/")
    name = parts[-2] if parts[-1] == "__init__" else parts[-1]
    if name in sys.stdlib_module_names and not name.startswith("__"):
        yield f"1: {name} is the name of a standard-library module"


def configs_import_nothing_heavy(path: str, tree: ast.AST) -> Iterator[str]:
    """A command line reads `eqxgen.configs` before jax and NumPy are imported."""
    if path.startswith("eqxgen/configs/"):
        for line, module, _ in imports(path, tree):
            if module.split(".")[0] not in sys.stdlib_module_names and not module.startswith("eqxgen.configs"):
                yield f"{line}: configs may import the standard library and each other, got {module}"


RULES = [
    imports_point_one_way,
    configs_import_nothing_heavy,
    annotations_stay_values,
    nothing_runs_foreign_code,
    addresses_are_https,
    errors_are_named,
    no_module_shadows_the_standard_library,
]


@pytest.fixture(scope="module")
def broken():
    """What breaks each rule; every file is parsed once for all."""
    found = {rule: [] for rule in RULES}
    for path, source in python_files():
        tree = ast.parse(source)
        for rule, lines in found.items():
            lines += [f"{path}:{finding}" for finding in rule(path, tree)]
    return found


@pytest.mark.parametrize("rule", RULES, ids=[rule.__name__ for rule in RULES])
def test_every_file_keeps_the_rule(rule, broken):
    assert not broken[rule], "\n".join(broken[rule])


# A violation of each rule, and beside it the nearest thing that is allowed; a case is a row, however long.
PLANTED = [
    (imports_point_one_way, "kernels/a.py", "import equinox", "import jax.numpy as jnp"),
    (imports_point_one_way, "kernels/a.py", "from kernels.masks import Mask", "from .masks import Mask"),
    (imports_point_one_way, "kernels/op/a.py", "def f():\n    import eqxgen", "def f():\n    from ..masks import Mask"),
    (imports_point_one_way, "eqxgen/nn/a.py", "from kernels import masks", "from ..ops import masks"),
    (imports_point_one_way, "eqxgen/nn/a.py", "import_module('kernels')", "import_module('equinox')"),
    (imports_point_one_way, "eqxgen/nn/ops.py", "import kernels", "import equinox"),
    (imports_point_one_way, "eqxgen/a.py", "import train.data", "from . import nn"),
    (imports_point_one_way, "train/a.py", "from bench.ops.attention_shapes import X", "from train.data import load"),
    (imports_point_one_way, "train/a.py", "import tests", "import eqxgen"),
    (imports_point_one_way, "train/a.py", "from kernels.attention import api", "from eqxgen.ops import dot_product_attention"),
    (configs_import_nothing_heavy, "eqxgen/configs/a.py", "import numpy as np", "import math"),
    (configs_import_nothing_heavy, "eqxgen/configs/a.py", "from eqxgen.nn import MLP", "from eqxgen.configs._check import require"),
    (annotations_stay_values, "train/a.py", "from __future__ import annotations", "from __future__ import division"),
    (nothing_runs_foreign_code, "train/a.py", "import pickle", "import json"),
    (nothing_runs_foreign_code, "train/a.py", "from pickle import loads", "from json import loads"),
    (nothing_runs_foreign_code, "train/a.py", "eval(x)", "model.eval(x)"),
    (nothing_runs_foreign_code, "train/a.py", "exec(x)", "ast.literal_eval(x)"),
    (nothing_runs_foreign_code, "train/a.py", "yaml.load(x)", "yaml.safe_load(x)"),
    (nothing_runs_foreign_code, "train/a.py", "run(x, shell=True)", "run([x], shell=False)"),
    (nothing_runs_foreign_code, "train/a.py", "np.load(x, allow_pickle=True)", "np.load(x, allow_pickle=False)"),
    (nothing_runs_foreign_code, "train/a.py", "open_tar(x).extractall()", "archive.extractfile(x)"),
    (nothing_runs_foreign_code, "train/a.py", "torch.load(x)", "np.load(x)"),
    (nothing_runs_foreign_code, "train/a.py", "load(x, weights_only=False)", "load(x, weights_only=True)"),
    (nothing_runs_foreign_code, "train/a.py", "os.system(x)", "os.fspath(x)"),
    (addresses_are_https, "train/a.py", "x = 'http://a.b'", "x = 'https://a.b'"),
    (errors_are_named, "train/a.py", "try: f()\nexcept Exception: pass", "try: f()\nexcept OSError: pass"),
    (errors_are_named, "train/a.py", "try: f()\nexcept: pass", "try: f()\nexcept BaseException:\n    g()\n    raise"),
    (errors_are_named, "train/a.py", "try: f()\nexcept (OSError, Exception) as e: raise ValueError from e", "try: f()\nexcept (OSError, KeyError): pass"),
    (no_module_shadows_the_standard_library, "eqxgen/types.py", "", ""),
    (no_module_shadows_the_standard_library, "train/compression/__init__.py", "", ""),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "path", "bad", "good"), PLANTED)
def test_every_rule_catches_a_planted_violation_and_nothing_beside_it(rule, path, bad, good):
    if path.endswith("/compression/__init__.py") and "compression" not in sys.stdlib_module_names:
        path = "train/types/__init__.py"
    assert list(rule(path, ast.parse(bad)))
    good_path = "eqxgen/activation.py" if rule is no_module_shadows_the_standard_library else path
    assert not list(rule(good_path, ast.parse(good)))


def test_the_rules_see_every_package():
    assert {path.split("/")[0] for path, _ in python_files()} == set(PACKAGES)
