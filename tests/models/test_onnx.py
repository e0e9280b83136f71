"""Models as programs without fused ops, and as files of ONNX where jax2onnx is installed."""

import importlib.util

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxpr_as_fun

from eqxgen.onnx_export import _error, ordinary, to_onnx
from kernels import grouped_matmul
from tests.arrays import drawn, filled, integers
from tests.full import FULL
from tests.models.model_rows import ROWS
from tests.nn.layer_rows import call

pytestmark = pytest.mark.usefixtures("unchecked")
INSTALLED = importlib.util.find_spec("jax2onnx") is not None
REFUSED = {  # jax2onnx 0.17.1 writes a mixture inside of a loop with shapes that do not fit, and bits of random draws
    "GPT, experts": "Incompatible dimensions",
    "StyleGAN2Generator": "No Op registered for BitCast",
}
PROGRAMS = [name for name in ROWS if not ROWS[name].whole] if FULL else ["GPT", "RNN", "DiT", "WaveGRU"]


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
    assert not {found for found in primitives(program.jaxpr) if found.startswith(("eqxgen", "platform_index"))}
    found = jax.jit(jaxpr_as_fun(program))(*inputs)
    for x, y in zip(found, jax.jit(function)(*inputs), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("words", ["aib,aib->aib", "aib,ba->abi", "ab,c->abc", "iab,bja->baij"])
def test_a_product_that_sums_over_nothing_is_one_of_broadcast_arrays(words):
    left, right = words.split("->")[0].split(",")
    sizes = {"a": 2, "b": 3, "c": 4, "i": 5, "j": 6}
    arrays = [drawn(tuple(sizes[name] for name in side)) for side in (left, right)]
    function = lambda x, y: (jnp.einsum(words, x, y),)
    program = ordinary(function, *arrays)
    assert "dot_general" in {*primitives(jax.make_jaxpr(function)(*arrays).jaxpr)}
    assert "dot_general" not in {*primitives(program.jaxpr)}
    np.testing.assert_array_equal(jaxpr_as_fun(program)(*arrays)[0], function(*arrays)[0])


@pytest.mark.parametrize(
    "config", [((0, 0, 1), (0, 0, 0)), ((2, -1, 2), (0, 1, 1)), ((-2, 3, 1), (1, 0, 0)), ((0, 0, 0), (0, -3, 3))]
)
def test_padding_between_entries_becomes_padding_after_each(config):
    x = drawn((3, 4))
    function = lambda x: (jax.lax.pad(x, jnp.float32(0.5), config),)
    program = ordinary(function, x)
    pads = [equation for equation in program.jaxpr.eqns if equation.primitive.name == "pad"]
    assert not any(inner for equation in pads for *_, inner in equation.params["padding_config"])
    np.testing.assert_array_equal(jaxpr_as_fun(program)(x)[0], function(x)[0])


@pytest.mark.parametrize("own", [True, False])
def test_a_grouped_product_becomes_products_with_all_groups(own):
    x, weight, groups = drawn((2, 7, 5)), drawn((2, 4, 3, 5), 1), integers((2, 7), 4, 2)
    mapped = jax.vmap(grouped_matmul, (0, 0 if own else None, 0))
    function = lambda x, groups: (mapped(x, weight if own else weight[0], groups),)
    program = ordinary(function, x, groups)
    assert not {"ragged_dot_general", "sort"} & {*primitives(program.jaxpr)}
    np.testing.assert_allclose(jaxpr_as_fun(program)(x, groups)[0], function(x, groups)[0], rtol=1e-6, atol=1e-6)


@pytest.mark.skipif(INSTALLED, reason="jax2onnx is installed")
def test_without_jax2onnx_the_extra_is_named(tmp_path):
    with pytest.raises(ModuleNotFoundError, match=r'pip install "eqxgen\[onnx\]"'):
        to_onnx(jnp.tanh, drawn((3,)), path=tmp_path / "model.onnx")


@pytest.mark.skipif(not INSTALLED, reason="needs the extra onnx")
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_file_of_onnx_gives_the_models_numbers(name, tmp_path):
    if name in REFUSED:
        with pytest.raises(ValueError, match=f"onnxruntime cannot run the file: .*{REFUSED[name]}"):
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
    with pytest.raises(ValueError, match=r"path must be in a folder that is there: got '.*none/model\.onnx'"):
        to_onnx(jnp.tanh, drawn((3,)), path=tmp_path / "none" / "model.onnx")


@pytest.mark.skipif(not INSTALLED, reason="needs the extra onnx")
def test_jax_numpy_is_as_it_was_afterwards_and_plain_numbers_are_of_jaxs_types(tmp_path):
    before = jnp.cumsum
    assert to_onnx(lambda x, y: x * y, drawn((3,)), 2.5, path=tmp_path / "model.onnx").error == 0
    assert jnp.cumsum is before


@pytest.mark.skipif(not INSTALLED, reason="needs the extra onnx")
@pytest.mark.parametrize("result", [[1.0, 2.0, np.nan], [np.inf, 2.0, 3.0]])
def test_a_file_whose_numbers_are_not_finite_where_jaxs_are_is_refused(result, tmp_path):
    path = tmp_path / "model.onnx"
    assert to_onnx(jnp.log, jnp.asarray([-1.0, 0.0, 1.0]), path=path).error < 1e-6  # NaN, -inf and 0, as in JAX
    to_onnx(lambda x: x + 1, jnp.ones(3), path=path)
    with pytest.raises(ValueError, match=r"must give JAX's numbers: the largest difference is (nan|inf)"):
        _error(path, [np.asarray(result)], [np.ones(3, np.float32)])
