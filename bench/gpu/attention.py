"""Attention's timed rows of `bench.gpu`: the FlashAttention-3 paper's grid, and calls with a mask or a bias."""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.ops.attention import draw, maker, operands, tokamax_maker, torch_maker
from bench.race import Turn, compare
from kernels import dot_product_attention, masks

# The kernels that may stop a process come before `ours`, which may choose one of them.
OURS = ("mosaic_gpu", "triton")
# The grid of the FlashAttention-3 paper: batch * seq and heads * head_dim are constant. Most telling first.
TOKENS, WIDTH = 16384, 2048
LENGTHS, HEAD_DIMS = (16384, 4096, 1024, 8192, 2048, 512), (128, 64, 256)
DIRECTIONS = ("forward", "backward")
# Kind, and (batch, seq, heads, head_dim); a window is a sixteenth of the length.
SPECIAL = {
    "bias 8 heads of 32 T384": ("bias", (384, 384, 8, 32)),
    "packed 12 documents T8192": ("packed", (2, 8192, 16, 128)),
    "window 1024 D64 T16384": ("window", (1, 16384, 32, 64)),
    "bias 4 heads of 32 T384": ("bias", (384, 384, 4, 32)),
    "packed 12 documents T32768": ("packed", (1, 32768, 16, 128)),
}
TINY = {name: (name, (2, 16, 2, 8)) for name in ("bias", "packed", "window")}

# A row's case, and its measurement.
Task = tuple[str, Callable[[Turn], dict[str, Any]]]


def document_ids(batch: int, seq: int, documents: int = 12) -> jax.Array:
    """Document of each token, of those packed into a row."""
    return jnp.asarray(np.sort(np.random.default_rng(5).integers(0, documents, (batch, seq)), 1), jnp.int32)


def packed(batch: int, seq: int) -> masks.Mask:
    """Each document is causal."""
    return masks.Causal() & masks.Segments(document_ids(batch, seq))


def grid(tiny: bool) -> Iterator[Task]:
    """The paper's grid, both directions."""
    tokens, width, lengths, dims = (64, 64, (32,), (32,)) if tiny else (TOKENS, WIDTH, LENGTHS, HEAD_DIMS)
    for seq, dim, causal, direction in itertools.product(lengths, dims, (False, True), DIRECTIONS):
        name = f"{direction} D{dim} T{seq} {'causal' if causal else 'full'}"
        yield (
            name,
            functools.partial(
                _grid_row, tokens // seq, seq, width // dim, dim, causal, direction, 0.05 if tiny else 1.0
            ),
        )


def _grid_row(
    batch: int, seq: int, heads: int, dim: int, causal: bool, direction: str, seconds: float, turn: Turn
) -> dict[str, Any]:
    arrays = operands(batch, seq, heads, dim)
    ours = functools.partial(dot_product_attention, is_causal=causal)
    theirs = functools.partial(jax.nn.dot_product_attention, is_causal=causal)
    make = lambda attend: maker(attend, arrays, (), direction)
    makers = {name: make(functools.partial(ours, implementation=name)) for name in OURS}
    makers |= {"ours": make(ours), "jax.nn cudnn": make(functools.partial(theirs, implementation="cudnn"))}
    # Beyond, its logits alone are 16 GiB and more.
    if seq <= 4096:
        makers["jax.nn xla"] = make(functools.partial(theirs, implementation="xla"))
    makers |= {
        "torch sdpa": torch_maker(arrays, causal, direction),
        "tokamax": tokamax_maker(arrays, causal, direction),
    }
    flops = 4.0 * batch * heads * seq * seq * dim * (0.5 if causal else 1.0) * (1.0 if direction == "forward" else 2.5)
    row = compare(makers, turn, seconds)
    return row | {"TFLOP/s": {n: flops / t / 1e9 for n, t in row["ms"].items()}}


def special(tiny: bool) -> Iterator[Task]:
    """Small heads with a bias, packed documents and a sliding window, against dense masks."""
    for direction, (name, (kind, shape)) in itertools.product(DIRECTIONS, (TINY if tiny else SPECIAL).items()):
        yield f"{name} {direction}", functools.partial(_special_row, kind, shape, direction, 0.05 if tiny else 1.0)


def _special_row(
    kind: str, shape: tuple[int, int, int, int], direction: str, seconds: float, turn: Turn
) -> dict[str, Any]:
    batch, seq, heads, _ = shape
    arrays, window = operands(*shape), seq // 16
    extra = (draw((1, heads, seq, seq), jnp.bfloat16, 9),) if kind == "bias" else ()
    mask = {"bias": None, "packed": packed(batch, seq), "window": masks.Window(window, 0)}[kind]
    ours = functools.partial(dot_product_attention, mask=mask)
    make = lambda attend: maker(attend, arrays, extra, direction)
    makers = {name: make(functools.partial(ours, implementation=name)) for name in OURS} | {"ours": make(ours)}
    makers["xla"] = make(functools.partial(ours, implementation="xla"))
    theirs = functools.partial(jax.nn.dot_product_attention, implementation="cudnn")
    if kind == "window":
        makers["jax.nn cudnn"] = make(functools.partial(theirs, local_window_size=(window, 0)))
    elif kind == "bias":
        makers |= {"jax.nn cudnn": make(theirs), "jax.nn xla": make(jax.nn.dot_product_attention)}
    elif seq <= 8192:
        # Beyond, the mask and the logits that it is added to do not fit.
        ids = document_ids(batch, seq)
        dense = jnp.tril(ids[:, None, :, None] == ids[:, None, None, :])
        for name in ("cudnn", "xla"):
            plain = functools.partial(jax.nn.dot_product_attention, mask=dense, implementation=name)
            makers[f"jax.nn {name}, dense mask"] = make(plain)
    return compare(makers, turn, seconds)
