"""The TPU kernels: against the formula in interpret mode, and compiled ahead of time for a TPU that is not there."""

import functools
import math
import re

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from bench.ops.attention_shapes import ATTENTION, MASKS, Attention
from bench.tpu.attention import topology
from kernels import ALiBi, dot_product_attention, masks
from kernels.attention import mosaic_tpu, schedule
from kernels.attention.mosaic_tpu import blocks
from kernels.attention.problem import Extras, Setting
from tests.full import full, rows
from tests.kernels.attention_cases import call, inputs, measure
from tests.kernels.attention_interpret import interpreted
from tests.kernels.attention_oracle import agree

# Every mask, kind of bias and option at least once. EQXGEN_FULL=1 takes the whole table of shapes, both ways.
COMPACT = {
    "one token": Attention(q_seq=1, kv_seq=1, heads=1, kv_heads=1),
    "five": Attention(),
    # No block needs a mask or is in part beyond the end, so that sums begin with a product: three spans of queries.
    "whole blocks": Attention(q_seq=320, kv_seq=128, heads=4, kv_heads=2, head_dim=16, v_head_dim=16),
    "123 causal multi query": Attention(q_seq=123, kv_seq=123, kv_heads=1, mask=MASKS["causal"]),
    "latent window": Attention(
        q_seq=37, kv_seq=45, heads=1, kv_heads=1, head_dim=192, v_head_dim=128, mask=MASKS["window"]
    ),
    "offset dropout": Attention(
        batch=2,
        q_seq=87,
        kv_seq=75,
        heads=4,
        head_dim=16,  # whole lanes of `interpreted`: heads beside one another
        v_head_dim=32,
        mask=MASKS["causal offset"],
        dropout_rate=0.3,
    ),
    "prefix bias": Attention(batch=2, q_seq=37, kv_seq=45, mask=MASKS["prefix"], bias=(True,) * 4),
    "lengths key bias": Attention(batch=2, q_seq=37, kv_seq=45, mask=MASKS["lengths"], bias=(True, False, False, True)),
    "dense query bias": Attention(q_seq=37, kv_seq=45, mask=MASKS["dense"], bias=(False, False, True, False)),
    "pattern alibi": Attention(q_seq=37, kv_seq=45, mask=MASKS["pattern"], alibi=True),
    "packed": Attention(
        q_seq=37,
        kv_seq=45,
        kv_heads=1,
        head_dim=16,
        v_head_dim=16,
        bias=(False, True, True, True),
        soft_cap=2.0,
        dropout_rate=0.2,
        mask=lambda draw, a: (
            (MASKS["segments"](draw, a) & MASKS["pattern"](draw, a))
            | (MASKS["window"](draw, a) & MASKS["lengths"](draw, a))
        ),
    ),
}
PACKED = np.repeat(np.arange(3, dtype=np.int32), (100, 30, 20))[None]
# Blocks whose active pieces are those of the causal mask, and one that has fewer.
COMPACT["packed causal"] = Attention(
    q_seq=150, kv_seq=150, kv_heads=1, mask=lambda draw, a: masks.Segments(PACKED) & masks.Causal()
)
INTERPRETED = COMPACT | ATTENTION
LONG = (*(ATTENTION.keys() - COMPACT.keys()), "five", "lengths key bias", "offset dropout")
"""Rows of `nox -s full` alone; "packed" has their options together."""


WHOLE = ("123 causal multi query", "latent window", "lengths key bias", "packed", "prefix bias")
"""Rows that the suite takes as one tile a head too, as users have short sequences."""
CUTS = [pytest.param(*row.values, False, marks=row.marks, id=f"{row.id}-tiles") for row in rows(INTERPRETED, *LONG)]
CUTS += [
    pytest.param(*row.values, True, marks=row.marks, id=f"{row.id}-whole")
    for row in rows(INTERPRETED, *(INTERPRETED.keys() - set(WHOLE)))
]


@pytest.mark.parametrize(("name", "whole"), CUTS)
def test_the_kernels_have_the_value_and_every_gradient_of_the_formula(name, whole, monkeypatch):
    arrays, rest = inputs(INTERPRETED[name])
    with interpreted(monkeypatch, whole=whole):
        got = jax.jit(functools.partial(measure, rest=rest, implementation="mosaic_tpu"))(arrays)
    agree(got, INTERPRETED[name], arrays, rest, tolerance=1e-4)


@pytest.mark.parametrize("most", [1, 2, 4])
def test_a_step_of_any_number_of_heads_has_the_value_and_every_gradient_of_the_formula(most, monkeypatch):
    """Some or all query heads of a key head, or of two."""
    case = Attention(q_seq=19, kv_seq=23, heads=4, kv_heads=2, mask=MASKS["causal"], bias=(False, True, True, True))
    arrays, rest = inputs(case)
    monkeypatch.setattr(blocks, "MOST_HEADS", most)
    with interpreted(monkeypatch, whole=True):
        got = jax.jit(functools.partial(measure, rest=rest, implementation="mosaic_tpu"))(arrays)
    agree(got, case, arrays, rest, tolerance=1e-4)


@full
@pytest.mark.parametrize("whole", [False, True], ids=["tiles", "whole"])
@pytest.mark.parametrize("name", INTERPRETED)
def test_the_kernels_read_nothing_that_they_did_not_write_on_a_simulated_tpu(name, whole, monkeypatch):
    arrays, rest = inputs(INTERPRETED[name])
    with interpreted(monkeypatch, simulated=True, whole=whole):
        got = measure(arrays, rest, "mosaic_tpu")
    agree(got, INTERPRETED[name], arrays, rest, tolerance=1e-4)


LIMITS = {
    "causal": masks.Causal(),
    "segments": masks.Segments(np.arange(100) // 40),
    "lengths": masks.Lengths(np.array([90]), np.array([70])),
}


@pytest.mark.parametrize("whole", [False, True], ids=["tiles", "whole"])
@pytest.mark.parametrize("name", LIMITS)
def test_a_number_that_is_not_finite_reaches_all_who_see_it_and_no_others(name, whole, monkeypatch):
    """In masked and in full blocks, by the output and by the gradients of rows that do not see the key."""
    side = 16 if name == "causal" else 8
    mask, case = LIMITS[name], Attention(q_seq=100, kv_seq=100, heads=1, kv_heads=1, head_dim=side, v_head_dim=side)
    arrays, _ = inputs(case)
    bound = mask.check(100, 100)
    ids = bound.arrays()
    ids = [ids[0][:, None], ids[1]] if name == "segments" else ids
    sees = np.broadcast_to(bound.allowed(*np.ogrid[:100, :100], *ids), (100, 100))[:, 20]

    @jax.jit
    def both(arrays):
        def value(arrays):
            out, _ = call(arrays, {"mask": mask}, "mosaic_tpu")
            return jnp.sum(jnp.where(sees[None, :, None, None], 0.0, out) ** 2), out

        return jax.grad(value, has_aux=True)(arrays)

    with interpreted(monkeypatch, whole=whole):
        want = both(arrays)
        for key, bad in (("key", jnp.nan), ("key", -jnp.inf), ("value", jnp.inf)):
            grads, out = both(arrays | {key: arrays[key].at[0, 20, 0, 0].set(bad)})
            assert np.isnan(out[0, sees]).all()
            np.testing.assert_allclose(out[0, ~sees], want[1][0, ~sees], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(grads["query"][0, ~sees], want[0]["query"][0, ~sees], rtol=1e-5, atol=1e-6)


def loss(q, k, v, key):
    return jnp.sum(dot_product_attention(q, k, v, dropout_rate=0.1, dropout_key=key).astype(jnp.float32))


def compiled(function, mesh, specs, *shapes):
    arguments = [
        jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))
        for spec, (shape, dtype) in zip(specs, shapes)
    ]
    return jax.jit(function).lower(*arguments).compile()


KERNEL = 'custom_call_target="tpu_custom_call"'


@pytest.fixture(scope="module")
def devices():
    pytest.importorskip("libtpu")
    return np.array(topology("v5e:2x4").devices)


def key_type():
    key = jax.eval_shape(lambda: jax.random.key(0))
    return key.shape, key.dtype


@pytest.mark.parametrize("head_dim", [48, 64])
def test_a_program_compiled_for_a_tpu_takes_its_kernels_without_being_asked(devices, head_dim):
    x = ((2, 257, 4, head_dim), jnp.bfloat16)
    program = compiled(jax.grad(loss, (0, 1, 2)), Mesh(devices[:1], "x"), [P()] * 4, x, x, x, key_type())
    assert program.as_text().count(KERNEL) == 2


def test_heads_of_whole_lanes_in_a_projection_are_not_transposed(devices):
    def value(*arrays):
        q, k, v = (x.reshape(1, 512, -1, 128) for x in arrays)
        out = dot_product_attention(q, k, v, is_causal=True)
        return jnp.sum(out.reshape(1, 512, -1).astype(jnp.float32) ** 2)

    q, k = ((1, 512, 512), jnp.bfloat16), ((1, 512, 256), jnp.bfloat16)
    text = compiled(jax.grad(value, (0, 1, 2)), Mesh(devices[:1], "x"), [P()] * 3, q, k, k).as_text()
    assert text.count(KERNEL) == 2
    assert not re.findall(r"= bf16\[\S+ (?:copy|transpose)\(", text)


def test_the_kernels_compile_inside_shard_map_with_varying_axes_checked(devices):
    def gradient(q, w, ids):
        value = lambda w: jnp.sum(
            dot_product_attention(q @ w, q, q, mask=masks.Segments(ids) & masks.Causal()).astype(jnp.float32)
        )
        return jax.lax.pmean(jax.grad(value)(jax.lax.pcast(w, "data", to="varying")), "data")

    mesh = Mesh(devices, "data")
    specs = (P("data"), P(), P("data"))
    mapped = jax.shard_map(gradient, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=True)
    shapes = ((16, 257, 4, 64), jnp.bfloat16), ((64, 64), jnp.bfloat16), ((16, 257), jnp.int32)
    text = compiled(mapped, mesh, specs, *shapes).as_text()
    assert text.count(KERNEL) == 2
    assert "all-gather" not in text


def test_a_sharded_program_without_shard_map_compiles_and_the_kernel_by_name_says_why_not(devices):
    mesh = Mesh(devices, "data")
    x = ((8, 64, 2, 64), jnp.bfloat16)
    assert KERNEL not in compiled(loss, mesh, [P("data")] * 3 + [P()], x, x, x, key_type()).as_text()
    with pytest.raises(
        NotImplementedError, match=r"XLA cannot split this kernel over devices: call it inside jax.shard_map"
    ):
        compiled(functools.partial(dot_product_attention, implementation="mosaic_tpu"), mesh, [P("data")] * 3, x, x, x)


# The sharding of query and of key on explicit axes, the number of key heads, and whether examples are mapped by vmap.
PLACES = {
    "batch and heads": (P("data", None, "model"), P("data", None, "model"), 2, False),
    "one key head, mapped": (P("data", None, "model"), P("data"), 1, True),
}


def explicit(devices, *shapes):
    mesh = jax.make_mesh((4, 2), ("data", "model"), devices=list(devices.flat))
    return [jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec)) for spec, shape, dtype in shapes]


@pytest.mark.parametrize("name", PLACES)
def test_a_plain_call_on_explicit_axes_runs_the_kernels_on_each_device_and_gathers_nothing(devices, name):
    by_query, by_key, kv_heads, mapped = PLACES[name]

    def value(q, k, v, key):
        attend = lambda q, k, v, mask: dot_product_attention(
            q, k, v, mask=mask, is_causal=True, dropout_rate=0.1, dropout_key=key, return_residual=True
        )
        masked = lambda q, k, v: attend(q, k, v, masks.Segments(jnp.zeros(q.shape[:-2], jnp.int32)))
        return sum(jnp.sum(x.astype(jnp.float32)) for x in (jax.vmap(masked) if mapped else masked)(q, k, v))

    shapes = [(by_query, (8, 257, 8, 64)), *[(by_key, (8, 257, kv_heads, 64))] * 2]
    arguments = explicit(devices, *((*x, jnp.bfloat16) for x in shapes), (P(), *key_type()))
    gradient = jax.jit(jax.grad(value, (0, 1, 2)))
    text = gradient.lower(*arguments).compile().as_text()
    assert text.count(KERNEL) in (2, 3)  # jax 0.12 joins the two forward passes
    assert not [word for word in ("all-gather", "all-to-all", "collective-permute") if f"{word}(" in text]
    # The gradient of a key head that devices share is summed over them.
    assert ("all-reduce(" in text) == (kv_heads == 1)


def test_a_program_exported_for_tpus_on_explicit_axes_holds_the_kernel(devices):
    (q,) = explicit(devices, (P("data", None, "model"), (8, 256, 4, 64), jnp.bfloat16))
    exported = jax.export.export(jax.jit(lambda q: dot_product_attention(q, q, q)), platforms=["tpu"])(q)
    assert "tpu_custom_call" in exported.mlir_module()
    assert exported.nr_devices == 8


def test_a_sequence_on_explicit_axes_is_left_to_xla_and_the_kernel_by_name_says_why_not(devices):
    (q,) = explicit(devices, (P("data", "model"), (8, 256, 4, 64), jnp.bfloat16))
    attend = lambda implementation: jax.jit(lambda q: dot_product_attention(q, q, q, implementation=implementation))
    assert KERNEL not in attend(None).lower(q).compile().as_text()
    with pytest.raises(NotImplementedError, match=r"or shard only its independent axes and over explicit mesh axes"):
        attend("mosaic_tpu").lower(q)


BAND = np.abs(np.subtract(*np.indices((64, 64)))) <= 1
# The active blocks of the forward kernel, of 64 times 64 blocks of 512 queries and keys.
SKIPPING = {
    "nothing": (None, 64 * 64),
    "causal": (masks.Causal(), 64 * 65 // 2),
    "window": (masks.Window(511, 0), 63 * 2 + 1),
    "prefix": (masks.PrefixLM(512), 64 * 65 // 2),
    "block sparse": (masks.BlockSparse(BAND, 512), 62 * 3 + 4),
    "fine block sparse": (masks.BlockSparse(BAND.repeat(4, 0).repeat(4, 1), 128), 62 * 3 + 4),
    "joined": (masks.BlockSparse(BAND, 512) & masks.Causal(), 63 * 2 + 1),
}


@pytest.mark.parametrize("name", SKIPPING)
def test_the_grid_of_the_kernel_has_no_more_steps_than_a_row_has_active_blocks(name):
    mask, count = SKIPPING[name]
    active, full = schedule.block_bounds(mask, 32768, 32768, 512, 512)
    assert active.sum() == count
    assert active.sum((2, 3)) == schedule.entries(active, full)[1].sum()
    x = jax.ShapeDtypeStruct((1, 32768, 1, 64), jnp.bfloat16)
    jaxpr = jax.make_jaxpr(lambda x: mosaic_tpu.attend(x, x, x, Extras(mask=mask), Setting(0.125)))(x)
    (kernel,) = (e for e in jaxpr.jaxpr.eqns if e.primitive.name == "pallas_call")
    rows = 64 if "sparse" in name or name == "joined" else 32  # a pattern has blocks of 512 queries, others of 1024
    tiles = active.reshape(1, 1, rows, 64 // rows, 32, 2).any((3, 5))
    assert math.prod(kernel.params["grid_mapping"].grid) == rows * tiles.sum(-1).max()


@pytest.mark.parametrize(
    ("join", "steps"), [(masks.And, 2), (masks.Or, 32), (lambda left, right: left, 32)], ids=["and", "or", "alone"]
)
def test_ids_that_are_traced_leave_the_steps_of_a_window_beside_them(join, steps):
    def attend(x, ids):
        mask = join(masks.Segments(ids), masks.Window(511, 0))
        return mosaic_tpu.attend(x, x, x, Extras(mask=mask), Setting(0.125))

    shapes = jax.ShapeDtypeStruct((1, 32768, 1, 64), jnp.bfloat16), jax.ShapeDtypeStruct((1, 32768), jnp.int32)
    (kernel,) = (e for e in jax.make_jaxpr(attend)(*shapes).jaxpr.eqns if e.primitive.name == "pallas_call")
    assert math.prod(kernel.params["grid_mapping"].grid) == 32 * steps


def test_masks_and_biases_of_every_kind_hold_no_square_of_the_length(devices):
    """One program with all of them, by the compiler's own count."""
    seq = 16384

    def value(q, slopes, ids, length):
        packed = masks.Segments(ids) & (masks.PrefixLM(length) | masks.Window(4096, 512)) & masks.Lengths(length, None)
        sparse = masks.BlockSparse.strided(seq // 128, block=128, stride=4) & masks.Causal(length)
        return jnp.sum(
            dot_product_attention(q, q, q, ALiBi(slopes), packed & sparse, implementation="mosaic_tpu").astype(
                jnp.float32
            )
        )

    shapes = ((1, seq, 2, 64), jnp.bfloat16), ((2,), jnp.float32), ((1, seq), jnp.int32), ((1,), jnp.int32)
    program = compiled(jax.grad(value, (0, 1)), Mesh(devices[:1], "x"), [P()] * 4, *shapes)
    assert program.as_text().count(KERNEL) == 3
    assert program.memory_analysis().temp_size_in_bytes <= seq * seq / 8


def test_a_pattern_too_fine_for_the_scalar_memory_is_refused_with_the_reason():
    x = jax.ShapeDtypeStruct((1, 32768, 1, 64), jnp.bfloat16)
    f = lambda x: dot_product_attention(
        x, x, x, mask=masks.BlockSparse(np.eye(16384, dtype=bool), 2), implementation="mosaic_tpu"
    )
    with pytest.raises(
        NotImplementedError, match=r"a pattern of blocks of 2 does not fit the scalar memory at 32768 keys"
    ):
        jax.eval_shape(f, x)
