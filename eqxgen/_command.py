"""The console command `eqxgen`: recipes and commands by name, from a wheel or a checkout.

eqxgen                          the list of recipes and commands, with a line each
eqxgen maskgit --help           a recipe; in a checkout also `python -m train.maskgit --help`
eqxgen sample --run RUN
eqxgen --version
"""

import ast
import runpy
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from eqxgen import __version__


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what the first word names with the words after it; gives the exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words == ["--version"]:
        print(f"eqxgen {__version__}")
        return 0
    package = _train()
    if package is None:
        print("error: eqxgen finds no recipes: install the wheel, or run from the top of a checkout", file=sys.stderr)
        return 1
    module, folder = package
    known = {path.stem: path for path in sorted(folder.glob("[a-z]*.py"))} | {"data": folder / "data" / "__main__.py"}
    if not words or words[0] in ("-h", "--help", "help"):
        print(f"eqxgen {__version__}: eqxgen NAME --help says what NAME takes\n")
        print("\n".join(f"  {name:14} {_first_line(path)}" for name, path in known.items()))
        return 0
    if words[0] not in known:
        near = get_close_matches(words[0], known, n=1, cutoff=0)[0]
        print(f"error: eqxgen runs one of {', '.join(known)}: got {words[0]!r}; nearest: {near}", file=sys.stderr)
        return 2
    sys.argv = [f"eqxgen {words[0]}", *words[1:]]
    runpy.run_module(f"{module}.{words[0]}", run_name="__main__", alter_sys=True)
    return 0


def _train() -> tuple[str, Path] | None:
    """Name and folder of the package of recipes: beside this file in a wheel, at the top of a checkout."""
    here = Path(__file__).parent
    for name, folder in (("eqxgen.train", here / "train"), ("train", here.parent / "train")):
        if (folder / "maskgit.py").exists():
            if name == "train":
                sys.path.insert(0, str(here.parent))
            return name, folder
    return None


def _first_line(path: Path) -> str:
    """The first sentence of a module, read without running it."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.split("\n", 1)[0]
