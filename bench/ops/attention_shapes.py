"""Shapes that the tests and the benchmarks share."""

import dataclasses
from collections.abc import Callable

import numpy as np

from kernels import masks


@dataclasses.dataclass(frozen=True)
class Attention:
    """One attention problem. `mask` makes the mask from a NumPy generator and the problem itself."""

    batch: int = 1
    q_seq: int = 5
    kv_seq: int = 5
    heads: int = 2
    kv_heads: int = 2
    head_dim: int = 8
    v_head_dim: int = 8
    mask: Callable[[np.random.Generator, "Attention"], masks.Mask] | None = None
    bias: tuple[bool, bool, bool, bool] | None = None
    alibi: bool = False
    soft_cap: float | None = None
    dropout_rate: float = 0.0


def _ids(draw: np.random.Generator, batch: int, seq: int) -> np.ndarray:
    return np.sort(draw.integers(0, 4, (batch, seq)), 1)


MASKS: dict[str, Callable[[np.random.Generator, Attention], masks.Mask]] = {
    "causal": lambda draw, a: masks.Causal(),
    "causal offset": lambda draw, a: masks.Causal(draw.integers(0, a.kv_seq, a.batch)),
    "window": lambda draw, a: masks.Window(7, 3),
    "prefix": lambda draw, a: masks.PrefixLM(draw.integers(0, a.kv_seq + 1, a.batch)),
    "segments": lambda draw, a: masks.Segments(_ids(draw, a.batch, a.q_seq), _ids(draw, a.batch, a.kv_seq)),
    "lengths": lambda draw, a: masks.Lengths(
        draw.integers(0, a.q_seq + 1, a.batch), draw.integers(0, a.kv_seq + 1, a.batch)
    ),
    "pattern": lambda draw, a: masks.BlockSparse(draw.random((-(-a.q_seq // 8), -(-a.kv_seq // 8))) > 0.5, 8),
    "dense": lambda draw, a: masks.Dense(draw.random((a.batch, 1, a.q_seq, a.kv_seq)) > 0.5),
}

# Odd sizes on purpose.
ATTENTION: dict[str, Attention] = {
    "one token": Attention(q_seq=1, kv_seq=1, heads=1, kv_heads=1),
    "five": Attention(),
    "123": Attention(batch=2, q_seq=123, kv_seq=123),
    "decode": Attention(batch=3, q_seq=1, kv_seq=123, heads=4, kv_heads=2),
    "multi query": Attention(q_seq=37, kv_seq=75, heads=3, kv_heads=1),
    "latent": Attention(q_seq=37, kv_seq=37, head_dim=12, v_head_dim=8),
    "bias": Attention(batch=2, q_seq=37, kv_seq=75, bias=(True, True, True, True)),
    "shared bias": Attention(batch=2, q_seq=37, kv_seq=75, heads=4, bias=(False, True, True, True), soft_cap=3.0),
    "key bias": Attention(batch=2, q_seq=37, kv_seq=75, bias=(True, False, False, True)),
    "query bias": Attention(batch=2, q_seq=37, kv_seq=75, bias=(False, False, True, False)),
    "alibi": Attention(batch=2, q_seq=37, kv_seq=75, heads=4, alibi=True, mask=MASKS["causal"]),
    "dropout": Attention(batch=2, q_seq=37, kv_seq=75, heads=4, dropout_rate=0.3, mask=MASKS["causal offset"]),
    "neighborhood": Attention(
        batch=2, q_seq=77, kv_seq=77, heads=4, kv_heads=2, mask=lambda draw, a: masks.Neighborhood((7, 11), 3, (2, 1))
    ),
    "everything": Attention(
        batch=2,
        q_seq=37,
        kv_seq=75,
        heads=4,
        head_dim=12,
        bias=(False, True, True, True),
        soft_cap=2.0,
        dropout_rate=0.2,
        mask=lambda draw, a: (MASKS["segments"](draw, a) | MASKS["prefix"](draw, a)) & MASKS["lengths"](draw, a),
    ),
} | {name: Attention(batch=2, q_seq=37, kv_seq=75, heads=4, mask=mask) for name, mask in MASKS.items()}

# Batch and length of the benchmark on a CPU; the first three are the default.
CPU_ATTENTION = [(4, 256), (1, 1024), (16, 64), (128, 16), (8, 128), (4, 1024), (1, 4096)]
# The same on a GPU or TPU: constant tokens, as in the FlashAttention-3 paper's grid.
ACCELERATOR_ATTENTION = [(16, 1024), (4, 4096), (1, 16384), (32, 512), (8, 2048), (2, 8192)]
