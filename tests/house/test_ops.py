"""The typed front door `eqxgen.ops`, in the layout of a checkout and in that of a wheel."""

import inspect
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import kernels
from eqxgen import ops

CHECKOUT = Path(__file__).parents[2]
CALLS = """from eqxgen.ops import ALiBi, context_attention, dot_product_attention, dropout_mask, from_zigzag
from eqxgen.ops import group_norm, grouped_matmul, layer_norm, masks, rms_norm, to_zigzag

reveal_type(ALiBi)
reveal_type(context_attention)
reveal_type(dot_product_attention)
reveal_type(dropout_mask)
reveal_type(from_zigzag)
reveal_type(group_norm)
reveal_type(grouped_matmul)
reveal_type(layer_norm)
reveal_type(masks.Causal)
reveal_type(rms_norm)
reveal_type(to_zigzag)
"""
WRONG = CALLS + "rms_norm(bias=None)\n"
TYPES = {
    "ALiBi": "type[ALiBi]",
    "context_attention": "Overload[(query: ",
    "dot_product_attention": "Overload[(query: ",
    "dropout_mask": "(key: Array, shape: tuple[int, ...], rate: float, *, rows: Array | None = None) -> Array",
    "from_zigzag": "(x: Sequence@from_zigzag, devices: int, *, axis: int = 0) -> Sequence@from_zigzag",
    "group_norm": "(x: Array, scale: Array | None = None, bias: Array | None = None, *, groups: int, ",
    "grouped_matmul": "(x: Array, weight: Array, groups: Array) -> Array",
    "layer_norm": "Overload[(x: Array, scale: Array | None = None, bias: Array | None = None, *, residual: None",
    "masks.Causal": "type[Causal]",
    "rms_norm": "Overload[(x: Array, scale: Array | None = None, *, residual: None",
    "to_zigzag": "(x: Sequence@to_zigzag, devices: int, *, axis: int = 0) -> Sequence@to_zigzag",
}


def lay_out(layout: str, folder: Path) -> None:
    """The packages as a checkout has them, or as a wheel installs them."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(CHECKOUT / "eqxgen", folder / "eqxgen", ignore=ignore)
    place = folder / "kernels" if layout == "checkout" else folder / "eqxgen" / "_kernels"
    shutil.copytree(CHECKOUT / "kernels", place, ignore=ignore)


@pytest.fixture(scope="module")
def pyright():
    """The command of a type checker that runs without a download."""
    command = [sys.executable, "-m", "pyright"]
    try:
        found = subprocess.run([*command, "--version"], capture_output=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip("pyright does not start")
    if found.returncode:
        pytest.skip("pyright is not installed (group `types`)")
    return command


@pytest.mark.parametrize("layout", ["checkout", "wheel"])
def test_a_type_checker_knows_the_signature_of_every_op(layout, pyright, tmp_path):
    lay_out(layout, tmp_path)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"reportMissingImports": "none"}))
    (tmp_path / "calls.py").write_text(WRONG)
    done = subprocess.run(
        [*pyright, "--outputjson", "--pythonpath", sys.executable, "calls.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    found = json.loads(done.stdout)["generalDiagnostics"]
    said = [d["message"] for d in found if d["severity"] == "information"]
    revealed = dict(message.removeprefix("Type of ").split(" is ", 1) for message in said)
    assert set(revealed) == {f'"{name}"' for name in TYPES}
    for name, kind in TYPES.items():
        assert revealed[f'"{name}"'].startswith(f'"{kind}'), revealed[f'"{name}"']
        assert "Unknown" not in revealed[f'"{name}"']
    (error,) = [d for d in found if d["severity"] == "error"]
    assert error["range"]["start"]["line"] == CALLS.count("\n")
    assert (tmp_path / "eqxgen" / "py.typed").is_file()


def test_a_wheel_runs_its_own_kernels_beside_a_foreign_package_of_that_name(tmp_path):
    lay_out("wheel", tmp_path)
    (tmp_path / "kernels").mkdir()
    (tmp_path / "kernels" / "__init__.py").write_text("raise RuntimeError('not ours')")
    code = "from eqxgen import ops; print(ops.layer_norm.__module__, sorted(set(ops.__all__) - set(dir(ops))))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "eqxgen._kernels.norm.api []\n", done.stderr


def test_the_door_has_the_documented_functions_of_the_kernels():
    assert ops.__all__ == kernels.__all__
    for name in ops.__all__:
        assert getattr(ops, name) is getattr(kernels, name)
        assert getattr(ops, name).__doc__
    signature = inspect.signature(ops.layer_norm)
    assert list(signature.parameters)[:3] == ["x", "scale", "bias"]
    assert signature.parameters["epsilon"].default == 1e-5
