"""A user's script, run by `nox -s wheel` with the installed wheel alone, beside Hugging Face's package `kernels`."""

import importlib.metadata
import json
import resource
import statistics
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp

import eqxgen
import kernels
from eqxgen import models, nn
from eqxgen.ops import dot_product_attention

CALLS = """import eqxgen
from eqxgen.models import GPT
from eqxgen.ops import dot_product_attention

reveal_type(dot_product_attention)
reveal_type(GPT)
reveal_type(eqxgen.nn.LayerNorm)
dot_product_attention(1)
"""
SMALL = ["--steps", "20", "--batch-size", "16", "--model.dim", "32", "--model.heads", "2", "--model.depth", "1"]


def command(*words: str) -> str:
    """Output of the console command; an error ends the script."""
    line = [str(Path(sys.executable).with_name("eqxgen")), *words]
    return subprocess.run(line, check=True, capture_output=True, text=True).stdout


def revealed(*checker: str) -> str:
    """What a type checker says of the names of the front door and of the models."""
    Path("calls.py").write_text(CALLS)
    line = [sys.executable, "-m", *checker, "calls.py"]
    return subprocess.run(line, check=False, capture_output=True, text=True).stdout


def started(statement: str) -> float:
    """Median processor time in seconds of a fresh interpreter with one statement."""
    times = []
    for _ in range(5):
        before = processor()
        subprocess.run([sys.executable, "-P", "-c", statement], check=True)
        times.append(processor() - before)
    return statistics.median(times)


def processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


home = Path(eqxgen.__file__).parent
assert all((home / name).exists() for name in ("_kernels", "train", "py.typed")), home
assert home.parent == Path(kernels.__file__).parents[1], "both packages come from site-packages"
assert "eqxgen" not in getattr(kernels, "__version__", "")
x = jnp.ones((3, 2, 4))
assert dot_product_attention(x, x, x).shape == (3, 2, 4)
assert nn.LayerNorm(4)(x).shape == x.shape
assert models.GPT
assert {"nn", "ops", "models", "RNG"} <= set(dir(eqxgen))
assert "TYPE_CHECKING" not in dir(eqxgen)
for checker in (["mypy"], ["pyright", "--pythonpath", sys.executable]):
    said = revealed(*checker)
    assert all(name in said for name in ("query", "LayerNorm", "GPT")), said
    assert "Unknown" not in said, said
    assert "error" in said, said  # of the last line alone
    assert "calls.py:8" in said, said
metadata = importlib.metadata.metadata("eqxgen")
assert metadata["License-Expression"] == "Apache-2.0"
assert "](docs/" not in str(metadata), "a link of the README leads nowhere on an index page"
base = started("import jax")
print(f"import eqxgen.ops takes {started('import eqxgen.ops') / base:.2f} times as long as import jax")
assert command("--version").split() == ["eqxgen", eqxgen.__version__]
listed = command()
assert all(f"\n  {name} " in listed for name in ("maskgit", "gpt", "classify", "sample", "data")), listed
command("maskgit", "--run-dir", "run", *SMALL)
assert json.loads(Path("run/summary.json").read_text())["steps"] == 20
command("sample", "--run", "run", "--n", "8", "--out", "eight.png")
assert Path("eight.png").read_bytes().startswith(b"\x89PNG")
print("the wheel does what its README says, beside", kernels.__file__)
