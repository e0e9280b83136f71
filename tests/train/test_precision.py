"""Types of computation, loss scales, and updates that are made only if they are finite."""

import functools
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from bench.reliability import loss_scale, non_finite
from eqxgen.configs import MaskGITConfig
from eqxgen.models.maskgit import MaskGIT
from eqxgen.nn import MLP, Embedding, LayerNorm, Projection
from train.params.paths import named_arrays
from train.precision import (
    DynamicLossScale,
    NoLossScale,
    Policy,
    Skipped,
    StaticLossScale,
    check_skipped,
    guarded_update,
    scale_for,
    to_compute,
    to_output,
    to_params,
    with_policy,
)

MIXED = ("float32", "bfloat16", "float32")


@pytest.mark.parametrize(
    ("text", "types"),
    [
        ("full", ("float32",) * 3),
        ("float32", ("float32",) * 3),
        ("mixed", MIXED),
        ("bfloat16", MIXED),
        ("bf16", MIXED),
        ("float16", ("float32", "float16", "float32")),
        ("half", ("bfloat16",) * 3),
        ("float64", ("float64",) * 3),
        ("params=float32,compute=bfloat16,output=float32", MIXED),
        ("p=f32,c=bf16,o=f32", MIXED),
        (" o = full , c = half ", MIXED),
        ("p=f32,c=f16", ("float32", "float16", "float16")),
        ("params=half", ("bfloat16",) * 3),
    ],
)
def test_a_text_is_a_policy(text, types):
    policy = Policy.parse(text)
    assert (policy.params, policy.compute, policy.output) == types
    assert policy.needs_scale is ("float16" in types)


def test_auto_is_float32_on_a_cpu_and_mixed_elsewhere():
    assert Policy.parse("auto", on_cpu=True) == Policy.parse("full")
    assert Policy.parse("auto", on_cpu=False) == Policy.parse("mixed")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bfloat", r"precision must be one of .*: got 'bfloat'; nearest: bfloat16"),
        ("fp32", r"got 'fp32'; nearest: f32"),
        ("", r"got ''"),
        ("compute=bf", r"precision's compute must be one of .*: got 'bf'; nearest: bf16"),
        ("computes=bf16", r"a part of a precision must be one of .*: got 'computes'; nearest: compute"),
        ("c=bf16,compute=f32", r"name each part once: got compute twice"),
    ],
)
def test_an_unknown_text_names_the_nearest(text, message):
    with pytest.raises(ValueError, match=message):
        Policy.parse(text)


def test_a_policy_is_read_without_jax():
    code = (
        "import sys; from train.precision import Policy; Policy.parse('mixed'); assert 'jax' not in sys.modules, 'jax'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_islands_stay_float32_where_the_model_computes_in_bfloat16():
    config, policy = (
        MaskGITConfig(dim=16, depth=2, heads=2, hidden_dim=24, dropout=0.0, placement="pre"),
        Policy.parse("mixed"),
    )

    def shapes():
        model = MaskGIT(9, 7, 3, config, key=jr.key(0))
        half = to_compute(policy, model)
        return half, to_params(policy, model), half(jnp.zeros(9, jnp.int32), jnp.int32(0))

    half, stored, logits = eqx.filter_eval_shape(shapes)
    types = {name: str(x.dtype) for name, x in named_arrays(half).items()}
    wide = {name for name, dtype in types.items() if dtype == "float32"}
    assert wide == {name for name in types if "norm" in name} | {"head_bias"}
    assert set(types.values()) == {"float32", "bfloat16"}
    assert {str(x.dtype) for x in named_arrays(stored).values()} == {"float32"}
    assert to_output(policy, jnp.ones(2, jnp.bfloat16)).dtype == jnp.float32
    assert logits.dtype == jnp.float32


class Pair(eqx.Module):
    """Two layers that say in which type they got and gave."""

    table: Embedding
    body: list[MLP]
    norm: LayerNorm
    head: Projection

    def __call__(self, ids):
        x = self.table(ids)
        x = self.body[0](x)
        self_types = (x.dtype, self.head(x).dtype, self.table.attend(x).dtype, self.table.weight.dtype)
        return self.head(self.norm(x)), self_types


@functools.cache
@eqx.filter_jit
def pair():
    keys = jr.split(jr.key(0), 3)
    return Pair(Embedding(5, 4, key=keys[0]), [MLP(4, key=keys[1])], LayerNorm(4), Projection(4, 3, key=keys[2]))


def test_layers_may_have_policies_of_their_own():
    f16 = Policy.parse("c=f16,o=bf16")
    model = to_compute(Policy.parse("mixed"), with_policy(pair(), {"table": f16, "head": Policy()}))
    assert model.head.layer.weight.dtype == jnp.float32
    assert model.body[0].up.weight.dtype == jnp.bfloat16
    y, (body, head, attended, weight) = eqx.filter_jit(model)(jnp.arange(3))
    assert (y.dtype, body, head, attended, weight) == (
        jnp.float32,
        jnp.bfloat16,
        jnp.float32,
        jnp.bfloat16,
        jnp.float16,
    )
    np.testing.assert_allclose(y, eqx.filter_jit(pair())(jnp.arange(3))[0], atol=0.1)


def test_a_policy_for_a_layer_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match=r"must name something: got 'haed'.*nearest: head"):
        with_policy(pair(), {"haed": Policy()})


def test_a_float16_loss_is_scaled_in_float32():
    scaled = DynamicLossScale().scale(jnp.float16(1000))
    assert scaled.dtype == jnp.float32
    assert float(scaled) == 65_536_000
    grads = StaticLossScale(100.0).unscale({"w": jnp.full(2, 300, jnp.float16), "f": jax.nn.relu})
    assert grads["w"].dtype == jnp.float32
    assert grads["w"].tolist() == [3, 3]
    assert NoLossScale().scale(jnp.bfloat16(3)).dtype == jnp.float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DynamicLossScale(0.0), "value must be positive and finite: got value=0.0"),
        (lambda: DynamicLossScale(float("inf")), "value must be positive and finite"),
        (lambda: DynamicLossScale(2.0**30), "value must be between lowest and highest"),
        (lambda: DynamicLossScale(interval=0), "interval must be at least 1 step: got 0"),
        (lambda: DynamicLossScale(growth=1.0), "growth must be above 1"),
        (lambda: DynamicLossScale(backoff=1.0), r"backoff in \(0, 1\)"),
        (lambda: StaticLossScale(-1.0), "value must be positive and finite: got value=-1.0"),
        (
            lambda: scale_for(Policy.parse("float16")),
            r"scale must be given for float16.*pass scale=DynamicLossScale\(\)",
        ),
    ],
)
def test_a_scale_that_cannot_be_is_an_error(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_floor_of_ones_own_survives_jit_and_scan():
    scale = DynamicLossScale(2.0, lowest=0.25, highest=8.0, interval=2)
    steps = jnp.array([False] * 6 + [True] * 13)
    end, seen = jax.jit(lambda s: jax.lax.scan(lambda s, ok: (s.adjust(ok), s.adjust(ok).value), s, steps))(scale)
    assert seen.tolist() == [1, 0.5, *[0.25] * 4, 0.25, 0.5, 0.5, 1, 1, 2, 2, 4, 4, 8, 8, 8, 8]
    assert (end.lowest, end.highest, end.interval) == (0.25, 8.0, 2)


@pytest.mark.parametrize("bad", ["w", "b", "loss", None])
def test_an_update_is_made_whole_or_not_at_all(bad):
    grads = {"b": jnp.ones(2), "w": jnp.ones(3)}
    if bad in grads:
        grads[bad] = grads[bad].at[1].set(jnp.nan)
    loss = jnp.float32(np.inf if bad == "loss" else 1)
    kept = ({"b": jnp.zeros(2), "w": jnp.zeros(3)}, jr.key(0), jnp.int32(4), "text")

    def update(g, kept):
        model, key, count, text = kept
        return jax.tree.map(jnp.subtract, model, g), jr.fold_in(key, 1), count + 1, text

    new = eqx.filter_jit(guarded_update)(update, grads, loss, kept, NoLossScale(), Skipped())
    made = bad is None
    assert [x.tolist() for x in new.kept[0].values()] == ([[-1] * 2, [-1] * 3] if made else [[0] * 2, [0] * 3])
    assert bool(jnp.all(jr.key_data(new.kept[1]) == jr.key_data(kept[1]))) is not made
    assert (int(new.kept[2]), new.kept[3]) == (5 if made else 4, "text")
    assert (int(new.skipped.total), int(new.skipped.consecutive)) == ((0, 0) if made else (1, 1))
    if not made:
        what = "the loss" if bad == "loss" else f"the gradient of {bad}"
        with pytest.raises(
            FloatingPointError,
            match=rf"in 1 steps in a row \(the limit is 1\): at step 7, with a loss scale of 1, {what} is not finite",
        ):
            check_skipped(new.skipped, new.scale, grads, limit=1, step=7)
    check_skipped(new.skipped, new.scale, grads, limit=2, step=7)


def test_an_update_that_changes_a_type_is_an_error():
    wrong = lambda g, kept: kept.astype(jnp.bfloat16)
    with pytest.raises(TypeError, match="must keep each array's type and shape"):
        guarded_update(wrong, jnp.ones(2), jnp.float32(0), jnp.ones(2), NoLossScale(), Skipped())


@pytest.fixture(scope="module")
def scales():
    return loss_scale.measure(short=True)


def test_a_dynamic_scale_is_the_plain_machine(scales):
    machine = scales["machine"]
    assert 0 < machine["overflows"] < machine["events"]
    assert (machine["lowest_scale"], machine["highest_scale"]) == (2.0**-14, 2.0**24)
    assert [machine[f"differing_{how}"] for how in ("in_scan", "under_jit", "after_checkpoint")] == [0, 0, 0]


def test_permanent_nan_ends_a_run_at_its_limit(scales):
    found = scales["permanent_nan"]
    assert found["raised_at_step"] == found["limit"]
    assert found["weights_unchanged"]


def test_an_overflow_in_one_replica_changes_nothing_in_any(scales):
    assert len(scales["replicas"]) == 6
    for row in scales["replicas"]:
        unchanged = [row[f"{part}_unchanged"] for part in ("parameters", "average", "optimiser", "schedule")]
        assert [*unchanged, row["replicas_agree"], row["goes_on"]] == [True] * 6, row
        assert (row["steps"], row["skipped"]) == (1, 1)
        assert row["scale_ratio"] == (0.5 if row["precision"] == "float16" else 1)


def test_what_is_not_finite_is_written_nowhere():
    rows = non_finite.cases(short=True)
    assert {row["place"] for row in rows} == set(non_finite.PLACES)
    assert {row["time"] for row in rows} == set(non_finite.TIMES)
    for row in rows:
        assert row["unchanged"], row
        assert row["finite"], row
        assert row["checkpoint_holds_it"], row
        assert row.get("goes_on", True), row
        assert row.get("ended_after", non_finite.LIMIT) == non_finite.LIMIT, row
        assert "the gradient of weight is not finite" in row.get("message", "the gradient of weight is not finite")
