"""Models as programs without fused ops, and as files of ONNX where jax2onnx is installed."""

import importlib.util

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxpr_as_fun

from eqxgen.onnx_export import ordinary, to_onnx
from tests.arrays import drawn, filled
from tests.full import FULL
from tests.models.model_rows import ROWS
from tests.nn.layer_rows import call

pytestmark = pytest.mark.usefixtures("unchecked")
INSTALLED = importlib.util.find_spec("jax2onnx") is not None
REFUSED = ("R3GANGenerator", "StyleGAN2Generator", "UNet, NCSN++")  # jax2onnx 0.17.1 lacks padding between entries
PROGRAMS = [name for name in ROWS if not ROWS[name].whole] if FULL else ["GPT", "RNN", "DiT"]


INITIALISED = ("R3GANDiscriminator", "StyleGAN2Discriminator")
"""Models whose results hardly depend on their inputs with drawn weights, which their layers scale down once more."""


def model_of(name):
    model = ROWS[name].make(jax.random.key(2)) if name in INITIALISED else filled(ROWS[name].make)
    model = eqx.nn.inference_mode(model)
    return lambda *inputs: call(model, ROWS[name], inputs)


def primitives(jaxpr):
    """Names of all primitives of a program, of those inside others too."""
    for equation in jaxpr.eqns:
        yield equation.primitive.name
        for value in equation.params.values():
            for part in value if isinstance(value, tuple | list) else (value,):
                part = getattr(part, "jaxpr", part)
                if hasattr(part, "eqns"):
                    yield from primitives(part)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_without_fused_ops_gives_the_models_numbers(name):
    inputs = ROWS[name].inputs(0)
    function = lambda *inputs: tuple(jax.tree.leaves(model_of(name)(*inputs)))
    program = ordinary(function, *inputs)
    assert not {found for found in primitives(program.jaxpr) if found.startswith("eqxgen")}
    found = jax.jit(jaxpr_as_fun(program))(*inputs)
    for x, y in zip(found, jax.jit(function)(*inputs), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(INSTALLED, reason="jax2onnx is installed")
def test_without_jax2onnx_the_extra_is_named(tmp_path):
    with pytest.raises(ModuleNotFoundError, match=r'pip install "eqxgen\[onnx\]"'):
        to_onnx(jnp.tanh, drawn((3,)), path=tmp_path / "model.onnx")


@pytest.mark.skipif(not INSTALLED, reason="needs the extra onnx")
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_file_of_onnx_gives_the_models_numbers(name, tmp_path):
    if name in REFUSED:
        with pytest.raises(ValueError, match=r"lax\.pad with interior padding"):
            to_onnx(model_of(name), *ROWS[name].inputs(0), path=tmp_path / "model.onnx")
        return
    found = to_onnx(model_of(name), *ROWS[name].inputs(0), path=tmp_path / "model.onnx")
    assert found.error < 1e-5
    here, there = (jax.tree.leaves(jax.jit(model_of(name))(*ROWS[name].inputs(seed))) for seed in (0, 1))
    change = max(float(jnp.max(jnp.abs(x - y))) / max(float(jnp.max(jnp.abs(x))), 1e-30) for x, y in zip(here, there))
    assert change > 1e-3, "a result that does not depend on the inputs shows nothing"
    assert len(found.inputs) == len(ROWS[name].inputs(0))


@pytest.mark.skipif(not INSTALLED, reason="needs the extra onnx")
def test_an_operation_that_has_no_onnx_is_named_and_leaves_no_file(tmp_path):
    path = tmp_path / "model.onnx"
    with pytest.raises(ValueError, match="jax2onnx cannot convert the program: "):
        to_onnx(lambda x: jax.pure_callback(np.tanh, x, x), drawn((3,)), path=path)
    assert not path.exists()
