"""The layout of the house: recipes alone in `train`, configs without jax, no circles, folders that one can take in."""

import ast
import subprocess
import sys

import pytest

from tests.house.layout import CHECKOUT, PACKAGES, circles, graph, modules

# Commands beside the recipes, which are the files of `train` with PRESETS.
COMMANDS = {"sample", "evaluate", "doctor", "convert", "compare", "search"}
MOST_FILES = 25


@pytest.mark.parametrize("package", ["kernels", "eqxgen", "train"])
def test_no_modules_import_each_other_in_a_circle_not_even_inside_functions(package):
    assert circles(graph(package)) == []


def test_a_planted_circle_is_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}) == [["a", "b", "c"]]


def test_a_file_of_train_is_a_recipe_or_a_command():
    files = [path for path in (CHECKOUT / "train").glob("*.py") if not path.stem.startswith("_")]
    assert len(files) > 4
    for path in files:
        names = {target.id for node in ast.parse(path.read_text()).body for target in _targets(node)}
        assert path.stem in COMMANDS or "PRESETS" in names, f"train/{path.name} is nothing that one types"
        assert '__name__ == "__main__"' in path.read_text(), f"train/{path.name} runs nothing"


def test_a_family_has_one_name_in_every_folder():
    recipes = {path.stem for path in (CHECKOUT / "train").glob("[a-z]*.py")} - COMMANDS
    for folder in ("eqxgen/configs", "eqxgen/models", "eqxgen/pretrained"):
        for path in (CHECKOUT / folder).glob("[a-z]*.py"):
            twins = {name for name in recipes if name.replace("_", "") == path.stem.replace("_", "")}
            assert not twins or path.stem in recipes, f"{folder}/{path.name} and train/{twins}.py name one family"


def test_no_folder_holds_more_files_than_one_takes_in():
    for package in ("kernels", "eqxgen", "train", "bench"):
        folders = {path.parent for path in modules(package).values()}
        # Recipes are commands, found by name.
        files = {
            folder: [path for path in folder.glob("*.py") if "\nRECIPE = " not in path.read_text()]
            for folder in folders
        }
        full = {str(folder.relative_to(CHECKOUT)): len(found) for folder, found in files.items()}
        assert not {name: count for name, count in full.items() if count > MOST_FILES}


@pytest.mark.parametrize("package", ["eqxgen.configs", "train.config"])
def test_configs_are_read_without_jax_and_numpy(package):
    names = [name for name in modules(package.split(".")[0]) if name == package or name.startswith(f"{package}.")]
    code = f"import {', '.join(names)}, sys; print(sorted(sys.modules.keys() & {{'jax', 'numpy'}}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_folder_of_code_says_in_its_init_what_it_is():
    for package in PACKAGES[:4]:
        for path in modules(package).values():
            init = path.parent / "__init__.py"
            assert init.exists(), f"{path.parent} has no __init__.py"
            assert ast.get_docstring(ast.parse(init.read_text())), f"{init} has no docstring"


def _targets(node: ast.stmt):
    nodes = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target for target in nodes if isinstance(target, ast.Name)]
