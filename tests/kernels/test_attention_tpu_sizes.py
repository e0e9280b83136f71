"""The TPU kernels of both passes fit the memory of each generation: compiled ahead of time, without a TPU."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bench.tpu.attention import topology
from bench.tpu_schedule.chips import CHIPS
from kernels import ALiBi, dot_product_attention, masks
from tests.full import FULL


class Size(NamedTuple):
    """One call with its gradients; `gqa` has 4 query heads a key head, `options` ALiBi, soft cap and dropout."""

    chip: str
    head_dim: int
    seq: int
    case: str = "causal"
    dtype: str = "bfloat16"


# Each generation with each head_dim, case and dtype; a length of 32,768 needs the most memory. The first are in every
# suite, all with EQXGEN_FULL=1.
SIZES = (
    Size("v5p", 128, 32768, "window"),
    Size("v4", 256, 77, "gqa"),
    Size("v6e", 96, 77, "causal", "float32"),
    Size("v5e", 72, 257, "segments"),
    Size("v5p", 256, 32768),
    Size("v4", 128, 4096, "gqa"),
    Size("v6e", 128, 1000, "bias", "float32"),
    Size("v4", 256, 32768),
    Size("v5e", 256, 32768),
    Size("v6e", 256, 32768),
    Size("v5p", 256, 32768, "gqa", "float32"),
    Size("v4", 256, 32768, "full", "float32"),
    Size("v5e", 128, 32768, "full", "float32"),
    Size("v6e", 64, 32768, "full", "float32"),
    Size("v4", 64, 32768, "window"),
    Size("v5e", 64, 32768, "gqa"),
    Size("v6e", 128, 32768, "gqa"),
    Size("v4", 72, 4096, "bias"),
    Size("v5p", 96, 4096, "bias", "float32"),
    Size("v5e", 256, 4096, "bias"),
    Size("v6e", 256, 4096, "segments", "float32"),
    Size("v5p", 64, 32768, "segments"),
    Size("v4", 96, 32768, "segments", "float32"),
    Size("v5e", 96, 1024, "window", "float32"),
    Size("v6e", 72, 1024, "window"),
    Size("v5p", 72, 1000, "full"),
    Size("v4", 128, 1000, "segments"),
    Size("v5e", 128, 77, "full"),
    Size("v5p", 128, 257, "causal", "float32"),
    Size("v5p", 256, 4096, "full"),
    Size("v5e", 256, 32768, "full"),
    Size("v4", 256, 4096, "bias"),
    Size("v6e", 64, 257, "bias"),
    Size("v4", 64, 1024, "full"),
    Size("v5p", 256, 32768, "options"),
    Size("v4", 128, 32768, "options"),
    Size("v5e", 128, 4096, "pattern"),
    Size("v4", 256, 4096, "pattern", "float32"),
    Size("v5p", 256, 32768, "segments"),
    Size("v6e", 256, 32768, "gqa"),
    Size("v5e", 256, 32768, "window"),
    Size("v5p", 512, 4096, "full"),
    Size("v4", 512, 4096, "causal", "float32"),
)


def call(size: Size):
    """The gradients, and the shapes of their arguments."""
    some = {"full": None, "bias": None, "window": masks.Window(min(1024, size.seq // 2), 0)}
    if size.case == "pattern":
        some["pattern"] = masks.BlockSparse.strided(size.seq // 128, block=128, stride=4)
    options = {"logits_soft_cap": 30.0, "dropout_rate": 0.1} if size.case == "options" else {}

    def value(q, k, v, bias, ids):
        mask = some.get(size.case, masks.Causal()) if ids is None else masks.Segments(ids) & masks.Causal()
        key = jax.random.key(0) if options else None
        bias = ALiBi(jnp.ones(q.shape[2])) if options else bias
        out = dot_product_attention(q, k, v, bias, mask, dropout_key=key, implementation="mosaic_tpu", **options)
        return jnp.sum(out.astype(jnp.float32))

    heads, seq, of = 4, size.seq, functools.partial(jax.ShapeDtypeStruct, dtype=jnp.dtype(size.dtype))
    q, k = (of((1, seq, n, size.head_dim)) for n in (heads, 1 if size.case == "gqa" else heads))
    bias = of((1, heads, seq, seq)) if size.case == "bias" else None
    ids = jax.ShapeDtypeStruct((1, seq), jnp.int32) if size.case == "segments" else None
    return jax.grad(value, (0, 1, 2, 3) if bias else (0, 1, 2)), (q, k, k, bias, ids)


@pytest.mark.parametrize("size", SIZES if FULL else SIZES[:3], ids=lambda x: "-".join(map(str, x)))
def test_both_passes_compile_within_the_memory_of_the_generation(size):
    pytest.importorskip("libtpu")
    device = topology(CHIPS[size.chip].topology).devices[0]
    place = NamedSharding(Mesh(np.array([device]), "x"), PartitionSpec())
    function, shapes = call(size)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes)
    text = jax.jit(function).lower(*shapes).compile().as_text()
    assert text.count('custom_call_target="tpu_custom_call"') == (3 if size.case == "bias" else 2)
