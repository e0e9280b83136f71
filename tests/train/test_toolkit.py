"""Steps of one's own: the documented example, gradients in any precision and on any number of devices, transforms of
trees.
"""

import ast
import functools
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest

import train
from eqxgen.nn import MLP, Dropout, Projection
from tests.devices import ROOT, printed
from tests.full import full
from train import (
    DynamicLossScale,
    Policy,
    apply_gradients,
    ddp,
    freeze,
    gradients,
    parameterise,
    parameters,
    select,
    unfreeze,
    update,
)
from train.params.paths import named_arrays

BLOCKS = re.findall(
    r"^```python\n(.*?)^```$", (ROOT / "docs" / "training.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
)
SEED = Path(os.environ.get("EQXGEN_SEEDS") or ROOT.parent / "shared" / "seeds") / "000_40fa862e27d129c4.txt"


def test_the_documented_steps_run(tmp_path):
    path = tmp_path / "steps.py"
    path.write_text("\n".join(BLOCKS), encoding="utf-8")
    found = runpy.run_path(str(path))
    assert np.isfinite(found["losses"]).all()
    assert found["metrics"] == {"...": ...}
    assert found["loss"].dtype == jnp.float32
    assert float(found["value"]) > 0
    assert (int(found["skipped"].total), float(found["scale"].value)) == (0, 2.0**16)
    assert found["head"].embedding.weight is None
    assert {x.dtype for x in jax.tree.leaves(parameters(found["G"]))} == {jnp.dtype("float32")}


def test_the_example_is_the_seeds_as_printed_but_for_imports():
    if not SEED.is_file():
        pytest.skip(f"there is no {SEED}; set EQXGEN_SEEDS to its folder")
    printed = re.findall(r"```python\n(.*?)```", SEED.read_text(encoding="utf-8"), re.DOTALL)
    (example,) = [block for block in printed if "@ddp" in block]
    (ours,) = [block for block in BLOCKS if "Gstep(G, batch, states, key=None)" in block]
    assert statements(ours) == statements(example)


def statements(block: str) -> list[str]:
    """All but imports, however it is spaced."""
    return [ast.dump(node) for node in ast.parse(block).body if not isinstance(node, ast.Import | ast.ImportFrom)]


def test_the_package_exports_without_importing_jax():
    code = "import sys, train; assert 'jax' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    assert all(hasattr(train, name) for name in train.__all__)
    with pytest.raises(AttributeError, match="no attribute 'gradient'"):
        _ = train.gradient


@pytest.fixture(scope="module")
def devices():
    return printed("tests.train.toolkit_devices", python=("-W", "error"), timeout=200)


@full
def test_eight_devices_have_the_gradients_of_one(devices):
    assert len(devices["rows"]) == 6
    for row in devices["rows"]:
        assert max(row["gradient"], row["model"], row["loss"]) <= 1e-14, row
        assert row["metrics"] == [16, 0.0, "kept"]
        assert row["alike"]
        assert row["devices"] == 8


def test_a_step_exchanges_its_gradients_once(devices):
    assert devices["all_reduces"] == 1


def test_every_device_draws_by_keys_of_its_own(devices):
    assert devices["drawn"] == pytest.approx(
        dict.fromkeys(("one key", "one old key", "a stack", "an old stack"), 0), abs=1e-7
    )


def test_replicas_are_on_every_device_and_their_inverse_on_one(devices):
    assert devices["placed"] == [8, 8, 1, 1]


def test_what_devices_cannot_share_is_an_error(devices):
    uneven, keys = devices["errors"]
    assert re.search(r"batch must have a first axis that 8 devices can share evenly: got shape \(12, \d\)", uneven)
    assert "key must be one key, or one for each of the 8 devices: got 4" in keys


def test_a_step_without_a_batch_is_an_error():
    with pytest.raises(ValueError, match=r"ddp splits the argument batch over the devices.*got \(model\)"):
        ddp(lambda model: model)
    with pytest.raises(ValueError, match="splits the argument images"):
        ddp(lambda model, batch: model, split_argument="images")


def test_a_result_that_differs_between_devices_is_named_with_a_hint():
    step = ddp(lambda model, batch: {"model": model, "loss": jnp.mean(batch)})
    message = r"got result\['loss'\] of float32\[\].*return it from `gradients` as a metric, or average it by jax.lax"
    with pytest.raises(ValueError, match=message):
        step(jnp.ones(2), jnp.ones((8, 3)))


def mean_square(model, x):
    y = model(x)
    return jnp.mean(y**2), {"type": y.dtype.name, "weight": model.weight.dtype.name}


@pytest.mark.parametrize(
    ("precision", "inner", "weight"),
    [
        ("single", "float32", "float32"),
        ("half", "float32", "bfloat16"),
        (Policy.parse("mixed"), "float32", "bfloat16"),
        ("c=bf16", "bfloat16", "bfloat16"),
        ("float32", "float32", "float32"),
    ],
)
def test_a_model_computes_in_the_precision_that_is_asked_for(precision, inner, weight):
    model, x = Projection(3, 2, key=jr.key(0)), jr.normal(jr.key(1), (5, 3))
    exact = jax.grad(lambda m: mean_square(m, x)[0])(model)
    for grad in (
        gradients(mean_square, precision=precision),
        gradients(precision=precision)(mean_square),
        functools.partial(gradients, precision=precision)(mean_square),
    ):
        (loss, metrics), grads = grad(model, x)
        assert loss.dtype == jnp.float32
        assert metrics == {"type": inner, "weight": weight}
        assert {g.dtype for g in jax.tree.leaves(grads)} == {jnp.dtype("float32")}
        np.testing.assert_allclose(grads.weight, exact.weight, atol=0.02)
    if weight == "float32":
        assert (grads.weight == exact.weight).all()


def test_a_float16_gradient_comes_scaled_for_the_guard():
    model, x = Projection(3, 2, key=jr.key(0)), jr.normal(jr.key(1), (5, 3))
    scale = DynamicLossScale(1024.0)
    (loss, _), scaled = gradients(mean_square, precision="float16", scale=scale)(model, x)
    (plain, _), grads = gradients(mean_square)(model, x)
    assert float(loss) == pytest.approx(float(plain), rel=1e-2)
    np.testing.assert_allclose(scale.unscale(scaled).weight, grads.weight, atol=2e-3)
    with pytest.raises(ValueError, match="scale must be given for float16"):
        gradients(mean_square, precision="float16")


def test_a_loss_may_come_alone_and_bad_ones_are_named():
    model, x = Projection(3, 2, key=jr.key(0)), jnp.ones((5, 3))
    loss, grads = gradients(lambda m, x: jnp.sum(m(x)), has_aux=False)(model, x)
    assert float(loss) == float(jnp.sum(model(x)))
    assert grads.bias.tolist() == [5, 5]
    for function, message in [
        (lambda m, x: jnp.sum(m(x)), "must come with metrics"),
        (lambda m, x: (m(x), {}), r"must be a floating-point scalar: got float32\[5,2\]"),
        (lambda m, x: (1.0, {}), "must be a floating-point scalar: got float"),
    ]:
        with pytest.raises(TypeError, match=message):
            gradients(function)(model, x)


class Net(eqx.Module):
    """A body, dropout and a head."""

    body: MLP
    dropout: Dropout
    head: Projection

    def __call__(self, x):
        return self.head(self.dropout(self.body(x), inference=True))


@functools.cache
@eqx.filter_jit
def net():
    return Net(MLP(4, key=jr.key(0)), Dropout(0.5), Projection(4, 2, key=jr.key(1)))


def test_a_frozen_body_is_seen_by_no_optimiser_and_a_new_head_is_trained():
    model = freeze(net())
    model = eqx.tree_at(lambda m: m.head, model, Projection(4, 3, key=jr.key(2)))
    assert [x.shape for x in jax.tree.leaves(parameters(model))] == [(3, 4), (3,)]
    optimiser = optax.adamw(0.1)
    states = optimiser.init(parameters(model))
    x = jr.normal(jr.key(3), (5, 4))

    @eqx.filter_jit
    def step(model, states):
        loss, grads = gradients(lambda m, x: jnp.mean(m(x) ** 2), has_aux=False)(model, x)
        return loss, *apply_gradients(model, states, grads, optimiser)

    loss, moved, states = step(model, states)
    before, after = unfreeze(model), unfreeze(moved)
    assert eqx.tree_equal(before.body, after.body)
    assert not (before.head.weight == after.head.weight).any()
    assert float(loss) == pytest.approx(float(jnp.mean(before(x) ** 2)))
    assert len(jax.tree.leaves(states[0].mu)) == 2


@pytest.mark.parametrize(
    ("which", "left"),
    [
        ("body", ["head.weight", "head.bias"]),
        (["body", "**.bias"], ["head.weight"]),
        (lambda path, leaf: getattr(leaf, "ndim", 0) == 1, ["body.up.weight", "body.down.weight", "head.weight"]),
    ],
)
def test_what_is_named_is_frozen_and_given_back(which, left):
    model = net()
    frozen = freeze(model, which)
    names = list(named_arrays(parameters(frozen)))
    assert names == left
    assert eqx.tree_equal(unfreeze(frozen), model)
    assert eqx.tree_equal(freeze(frozen, which), frozen)
    assert eqx.tree_equal(
        unfreeze(freeze(model), which), freeze(model, lambda path, leaf: path in left or not eqx.is_inexact_array(leaf))
    )


def test_parameters_are_taken_out_and_put_back():
    model = net()
    head = select(model, "head")
    assert [x.shape for x in jax.tree.leaves(head)] == [(2, 4), (2,)]
    doubled = update(model, jax.tree.map(lambda x: 2 * x, head))
    assert (doubled.head.weight == 2 * model.head.weight).all()
    assert eqx.tree_equal(doubled.body, model.body)
    assert eqx.tree_equal(select(model), parameters(model))
    still = update(freeze(model, "head"), jax.tree.map(lambda x: 2 * x, head))
    assert eqx.tree_equal(unfreeze(still), doubled)
    assert jax.tree.leaves(select(still, "head")) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[:1], r"update: head.weight must be float32\[2, 4\]: got float32\[1, 4\]"),
        (lambda x: x.astype(jnp.bfloat16), r"update: head.weight must be float32\[2, 4\]: got bfloat16\[2, 4\]"),
    ],
)
def test_a_part_of_another_shape_or_type_is_an_error(change, message):
    model = net()
    with pytest.raises(ValueError, match=message):
        update(model, jax.tree.map(change, select(model, "head")))


@pytest.mark.parametrize("transform", [freeze, unfreeze, select])
def test_a_pattern_that_names_nothing_is_an_error(transform):
    with pytest.raises(ValueError, match="must name something: got 'tail'"):
        transform(net(), "tail")


def test_a_model_is_a_function_of_its_parameters():
    model, x = net(), jnp.ones((3, 4))
    params, apply = parameterise(freeze(model, "body"))
    assert (apply(params, x) == model(x)).all()
    assert len(jax.tree.leaves(params)) == 2
    zero = jax.tree.map(jnp.zeros_like, params)
    assert (apply(zero, x) == 0).all()
