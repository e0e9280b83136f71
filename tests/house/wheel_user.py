"""A user's script, run by `nox -s wheel` with the installed wheel alone, beside Hugging Face's package `kernels`."""

import json
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp

import eqxgen
import kernels
from eqxgen import models, nn
from eqxgen.ops import dot_product_attention

SMALL = ["--steps", "20", "--batch-size", "16", "--model.dim", "32", "--model.heads", "2", "--model.depth", "1"]


def command(*words: str) -> str:
    """Output of the console command; an error ends the script."""
    line = [str(Path(sys.executable).with_name("eqxgen")), *words]
    return subprocess.run(line, check=True, capture_output=True, text=True).stdout


home = Path(eqxgen.__file__).parent
assert all((home / name).exists() for name in ("_kernels", "train", "py.typed")), home
assert home.parent == Path(kernels.__file__).parents[1], "both packages come from site-packages"
assert "eqxgen" not in getattr(kernels, "__version__", "")
x = jnp.ones((3, 2, 4))
assert dot_product_attention(x, x, x).shape == (3, 2, 4)
assert nn.LayerNorm(4)(x).shape == x.shape
assert models.GPT
assert command("--version").split() == ["eqxgen", eqxgen.__version__]
assert "maskgit" in command()
command("maskgit", "--run-dir", "run", *SMALL)
assert json.loads(Path("run/summary.json").read_text())["steps"] == 20
command("sample", "--run", "run", "--n", "8", "--out", "eight.png")
assert Path("eight.png").read_bytes().startswith(b"\x89PNG")
print("the wheel does what its README says, beside", kernels.__file__)
