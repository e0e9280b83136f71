"""Layers whose sequence is split over devices."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from eqxgen import nn
from tests.devices import printed
from tests.full import full


@full
def test_every_layer_that_knows_a_split_sequence_gives_what_one_device_gives():
    found = printed("tests.nn.split_devices", timeout=3000)
    assert max(found.values()) < 1e-14, found


def traced(layer, seq, **options):
    """A layer traced for its part of a sequence over four devices."""
    mesh = AbstractMesh((4,), ("context",), axis_types=(AxisType.Auto,))

    def local(x):
        with nn.split_over(sequence="context", **options):
            return layer(x)

    spec = PartitionSpec("context")
    return jax.eval_shape(
        jax.shard_map(local, mesh=mesh, in_specs=spec, out_specs=spec), jax.ShapeDtypeStruct((seq, 8), jnp.float32)
    )


def test_a_split_that_cannot_be_is_an_error_that_says_why():
    layer = nn.SelfAttention(8, 2, rope=nn.RoPE(4), key=jax.random.key(0))
    assert traced(layer, 16, order="zigzag").shape == (16, 8)
    with pytest.raises(ValueError, match="order must be one of"):
        traced(layer, 16, order="striped")
    with pytest.raises(ValueError, match="order='zigzag' needs an even number of tokens on each device: got 3"):
        traced(layer, 12, order="zigzag")
    with pytest.raises(ValueError, match="a number of devices that divides the query heads: got 2 heads and 4 devices"):
        traced(layer, 16, method="all_to_all")
    with pytest.raises(ValueError, match="axis_name must be a manual mesh axis"), nn.split_over(sequence="context"):
        nn.SelfAttention(8, 2, key=jax.random.key(0))(jnp.zeros((4, 8)))
