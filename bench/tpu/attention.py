"""Attention compiled for TPUs without a TPU: bytes, FLOPs and kernels of each program.

    JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 python -m bench.tpu.attention

Needs `jax[tpu]`. FLOPs are those of the call, 2 products forward and 5 backward, halved under a causal mask: the
compiler does not count those of a kernel. Bytes are the compiler's, for one forward and backward pass.
"""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bench.race import both
from kernels import dot_product_attention

TOPOLOGIES = ("v4:2x2x1", "v5e:2x4", "v5p:2x2x1", "v6e:2x4")
HEAD_DIMS = (64, 128, 256)
LENGTHS = (1024, 8192, 32768)


def topology(name: str):
    """A description of TPU devices that libtpu compiles for on any host."""
    # Without a chip there is none to find or to lock.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental import topologies

    return topologies.get_topology_desc(platform="tpu", topology_name=name)


def measure(name: str, seq: int, head_dim: int, *, heads: int = 4, kv_heads: int = 2) -> dict[str, float]:
    """Bytes, FLOPs and kernels of a causal bfloat16 forward and backward pass."""
    sharding = NamedSharding(Mesh(np.array(topology(name).devices[:1]), "x"), PartitionSpec())
    arrays = [
        jax.ShapeDtypeStruct((1, seq, h, head_dim), jnp.bfloat16, sharding=sharding)
        for h in (heads, kv_heads, kv_heads, heads)
    ]

    attend = functools.partial(dot_product_attention, is_causal=True)
    compiled = jax.jit(functools.partial(both, attend)).lower(arrays[3], *arrays[:3]).compile()
    memory = compiled.memory_analysis()
    return {
        "kernels": compiled.as_text().count('custom_call_target="tpu_custom_call"'),
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "temporary_bytes": memory.temp_size_in_bytes,
        "flops": 7 * 2 * heads * seq * seq * head_dim / 2,
    }


def main() -> None:
    for name in TOPOLOGIES:
        for head_dim in HEAD_DIMS:
            for seq in LENGTHS:
                row = measure(name, seq, head_dim)
                sizes = ", ".join(f"{key} {value:.4g}" for key, value in row.items())
                print(f"{name} seq {seq} head_dim {head_dim}: {sizes}", flush=True)


if __name__ == "__main__":
    main()
