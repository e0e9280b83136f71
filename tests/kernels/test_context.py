"""Attention over a sequence that is sharded over a mesh axis."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from bench.machine import RESULTS
from kernels import ALiBi, context_attention, from_zigzag, masks, to_zigzag
from kernels.attention.problem import Extras
from kernels.context import checks
from tests.arrays import drawn
from tests.devices import printed
from tests.full import full

LIMIT = 1e-14


def differ(found: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    return {name: row for name, row in found.items() if not all(value <= LIMIT for value in row.values())}


def test_a_sequence_on_several_devices_gives_what_one_device_gives():
    found = printed("tests.kernels.context_cases", "short")
    assert not differ(found)
    assert {"ring", "all_to_all"} == {name.split(", ")[-3] for name in found}


@full
def test_every_mask_method_order_and_number_of_devices_gives_what_one_device_gives():
    assert not differ(printed("tests.kernels.context_cases", "long", timeout=6000))


@full
def test_dropout_other_mesh_axes_memory_and_numbers_that_are_not_finite():
    found = printed("tests.kernels.context_cases", "special", timeout=1000)
    assert found["all_to_all: difference of the dropped weights from one device's"] <= LIMIT
    assert found["ring: difference of the kept weights"] <= LIMIT
    assert found["ring: difference of the value's gradient"] <= LIMIT
    assert abs(found["ring: share of the kept weights"] - 0.75) < 0.02
    assert found["other rows than one device's are not finite"] == 0
    assert found["difference of the rows that are finite"] <= LIMIT
    assert found["data over an explicit axis: difference"] <= LIMIT
    assert found["vmap over two mesh axes, None: difference"] <= LIMIT
    assert found["vmap over two mesh axes, reference: difference"] <= LIMIT
    assert found["memory of 8 devices over 4"] < 1.1


def of_abstract_devices(devices: int = 4, **arguments):
    """The abstract result inside `jax.shard_map`; nothing is compiled."""
    shapes = {"query": (2, 24, 4, 8), "key": (2, 24, 2, 8), "value": (2, 24, 2, 8)}
    shapes |= {name: arguments.pop(name) for name in tuple(arguments) if name in shapes}
    names = {"axis_name": "context"} | arguments
    spec = PartitionSpec(None, "context")
    mesh = AbstractMesh((devices,), ("context",), axis_types=(AxisType.Auto,))
    mapped = jax.shard_map(
        lambda *operands: context_attention(*operands, **names), mesh=mesh, in_specs=(spec,) * 3, out_specs=spec
    )
    return jax.eval_shape(mapped, *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes.values()))


WRONG = [
    ({"axis_name": "contxt"}, ValueError, r"axis_name must be a manual mesh axis: got 'contxt' with the manual axes \('context',\)"),
    ({"axis_name": None}, ValueError, r"axis_name must be a manual mesh axis: got None"),
    ({"method": "ulysses"}, ValueError, r"method must be None or one of \('ring', 'all_to_all'\): got 'ulysses'"),
    ({"method": "all_to_all", "devices": 8}, ValueError, r"divides the query heads: got 4 heads and 8 devices; use method='ring'"),
    ({"order": "striped"}, ValueError, r"order must be one of \('contiguous', 'zigzag'\): got 'striped'"),
    ({"order": "zigzag", "devices": 8}, ValueError, r"even number of tokens on each device: got query length 3"),
    ({"value": (2, 16, 2, 8)}, ValueError, r"key and value must have the same length: got key length 6 and value length 4"),
    ({"query": (2, 24, 3, 8)}, ValueError, r"key heads must divide.*got 3 query heads and 2 key heads"),
    ({"key_value_seq_lengths": np.array([25, 3])}, ValueError, r"got 3 to 25 for length 24"),
    ({"mask": masks.Segments(np.zeros((2, 24), int))}, ValueError, r"q_ids must have one id per query: got shape \(2, 24\) for 6 positions"),
    ({"mask": np.ones((24, 24), bool)}, ValueError, r"mask must broadcast to .*\(\.\.\., 6, 24\): got shape \(24, 24\)"),
    ({"bias": np.ones((6, 6), np.float32)}, ValueError, r"bias must broadcast to .*\(2, 4, 6, 24\): got shape \(6, 6\)"),
    ({"bias": ALiBi(np.ones(3, np.float32))}, ValueError, r"slopes must have shape \(heads,\) = \(4,\)"),
    ({"dropout_rate": 0.5}, ValueError, r"needs a dropout_key"),
    ({"method": "ring", "implementation": "cudnn"}, NotImplementedError, r"cannot run with method='ring'.*use method='all_to_all'"),
    ({"implementation": "flash"}, ValueError, r"implementation must be None or one of"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "error", "message"), WRONG, ids=lambda x: "-".join(x) if isinstance(x, dict) else "")
def test_a_wrong_call_says_what_is_wrong_before_anything_is_compiled(wrong, error, message):
    with pytest.raises(error, match=message) as caught:
        of_abstract_devices(**wrong)
    assert len(str(caught.value).splitlines()) == 1


def test_a_call_outside_of_shard_map_says_so():
    x = drawn((2, 6, 4, 8))
    with pytest.raises(ValueError, match=r"got 'context' with no manual axes; call it inside jax.shard_map"):
        context_attention(x, x, x, axis_name="context")


@pytest.mark.parametrize("lib", [np, jnp])
def test_zigzag_is_undone_and_gives_each_device_the_same_number_of_causal_pairs(lib):
    x = lib.arange(2 * 24 * 3).reshape(2, 24, 3)
    there = to_zigzag(x, 4, axis=1)
    assert isinstance(there, type(x))
    np.testing.assert_array_equal(from_zigzag(there, 4, axis=-2), x)
    positions = np.asarray(there)[0, :, 0].reshape(4, 6) // 3
    assert positions[1].tolist() == [3, 4, 5, 18, 19, 20]
    assert len({int((row + 1).sum()) for row in positions}) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"devices": 4}, r"must divide into 2 \* devices = 8 equal chunks: got length 12; pad it"),
        ({"devices": 0}, r"devices must be a positive int: got 0"),
        ({"devices": 2, "axis": 2}, r"axis must be one of the array's 2 axes: got 2"),
    ],
)
def test_a_sequence_that_has_no_zigzag_order_says_why(arguments, message):
    for move in (to_zigzag, from_zigzag):
        with pytest.raises(ValueError, match=message):
            move(np.zeros((12, 2)), **arguments)


@pytest.mark.parametrize(
    ("heads", "kv_heads", "devices", "bias", "chosen"),
    [
        (16, 16, 8, None, "all_to_all"),
        (16, 1, 4, None, "ring"),
        (6, 6, 4, None, "ring"),  # heads that the devices do not divide
        (16, 16, 8, (16, 64, 512), "all_to_all"),
        (16, 16, 8, (1, 4096, 32768), "ring"),  # all devices need all rows of the bias
    ],
)
def test_the_method_is_the_one_that_sends_less(heads, kv_heads, devices, bias, chosen):
    tokens = 64 if bias is None else bias[1]
    q, k = (jax.ShapeDtypeStruct((1, tokens, n, 64), jnp.bfloat16) for n in (heads, kv_heads))
    extras = Extras(None if bias is None else jax.ShapeDtypeStruct((1, *bias), jnp.bfloat16))
    assert checks.method(None, q, k, k, extras, devices) == chosen


def test_the_bytes_of_the_choice_are_those_of_compiled_programs():
    rows = json.loads((RESULTS / "tpu" / "context.json").read_text(encoding="utf-8"))["rows"]
    assert {row["method"] for row in rows} == {"ring", "all_to_all"}
    for row in rows:
        assert row["kernels"] > 0, row
        assert row["sent"] == pytest.approx(row["formula"], rel=0.01), row
        # Each chip sends to the next one on the grid alone.
        assert row["method"] != "ring" or row["busiest link"] == row["sent"], row
