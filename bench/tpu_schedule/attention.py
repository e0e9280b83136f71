"""Attention of each mask and option: ours, and the rivals that have it."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from kernels import ALiBi, dot_product_attention, masks

HEADS, WINDOW, SEGMENTS, CAP = 8, 1024, 12, 30.0
CASES = ("full", "causal", "window", "segments", "bias", "alibi", "soft cap", "gqa", "dropout")
# Blocks of splash attention: queries, keys, keys of a part; forward, then backward.
SPLASH = (
    ((512, 1024, 512), (512, 512, 512)),
    ((1024, 1024, 512), (512, 1024, 512)),
    ((512, 512, 512), (1024, 1024, 512)),
    ((1024, 2048, 512), (1024, 512, 512)),
)


@dataclasses.dataclass(frozen=True)
class Problem:
    """One bfloat16 sequence of 8 heads. All cases but `full` are causal; `segments` are 12 packed ones."""

    case: str
    seq: int
    head_dim: int

    @property
    def kv_heads(self) -> int:
        return HEADS // 4 if self.case == "gqa" else HEADS

    @property
    def causal(self) -> bool:
        return self.case not in ("full", "window")

    @property
    def ids(self) -> np.ndarray:
        """Segment of each position, (1, seq)."""
        cuts = np.random.default_rng(0).choice(np.arange(1, self.seq), SEGMENTS - 1, replace=False)
        return np.searchsorted(np.sort(cuts), np.arange(self.seq), side="right").astype(np.int32)[None]

    @property
    def trivial(self) -> bool:
        """True for a window that is the causal mask."""
        return self.case == "window" and self.seq <= WINDOW

    @property
    def pairs(self) -> int:
        """Pairs of a query and a key that the mask allows, of all heads."""
        n, w = self.seq, min(WINDOW, self.seq)
        if self.case == "full":
            return HEADS * n * n
        if self.case == "window":
            return HEADS * (w * (w + 1) // 2 + (n - w) * w)
        lengths = np.bincount(self.ids[0]).astype(int) if self.case == "segments" else np.array([n])
        return HEADS * int((lengths * (lengths + 1) // 2).sum())


@dataclasses.dataclass(frozen=True)
class Call:
    """Attention of q, k, v and `extras`. Its arrays are a projection's, (1, seq, heads * head_dim), or (heads, seq,
    head_dim), with an axis of the batch if `batched`: each rival has the layout for which it transposes nothing.
    `blocks`: a rival's block sizes by pass.
    """

    function: Callable[..., Any]
    extras: tuple[Any, ...] = ()
    heads_first: bool = False
    batched: bool = True
    blocks: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)

    def forward(self, *arrays: Any) -> Any:
        """The result of q, k, v and the extras."""
        if self.heads_first:
            return self.function(*arrays)
        *wide, extras = *arrays[:3], arrays[3:]
        head_dim = wide[0].shape[-1] // HEADS
        out = self.function(*(x.reshape(*x.shape[:2], -1, head_dim) for x in wide), *extras)
        return out.reshape(*out.shape[:2], -1)

    def both(self, *arrays: Any) -> Any:
        """The result and the gradients of q, k and v."""
        dout, q, k, v, *extras = arrays
        out, pull = jax.vjp(lambda q, k, v: self.forward(q, k, v, *extras), q, k, v)
        return out, pull(dout)

    def arguments(self, problem: Problem) -> tuple[Any, ...]:
        """The shapes of dout, q, k, v and the extras."""

        def array(heads: int) -> jax.ShapeDtypeStruct:
            side = problem.head_dim
            shape = (heads, problem.seq, side) if self.heads_first else (problem.seq, heads * side)
            return jax.ShapeDtypeStruct((*(1,) * self.batched, *shape), jnp.bfloat16)

        return array(HEADS), array(HEADS), array(problem.kv_heads), array(problem.kv_heads), *self.extras


def calls(problem: Problem) -> Iterator[tuple[str, Call]]:
    """Ours, and each rival that computes the problem, by name."""
    yield "ours", _ours(problem)
    if problem.case in ("full", "causal", "window", "segments", "soft cap", "gqa"):
        for forward, backward in SPLASH:
            if max(*forward, *backward) <= problem.seq:
                yield f"splash {sizes(forward)} {sizes(backward)}", _splash(problem, forward, backward)
    if problem.case in ("full", "causal", "segments", "bias"):
        yield "flash", _flash(problem)
    if problem.case in ("full", "causal", "window", "segments", "bias", "gqa"):
        yield "xla", _xla(problem)


def sizes(blocks: tuple[int, ...]) -> str:
    """Block sizes as in the table."""
    return "/".join(map(str, blocks))


def _ours(problem: Problem) -> Call:
    mask = {"full": None, "window": masks.Window(WINDOW - 1, 0)}.get(problem.case, masks.Causal())
    if problem.case == "segments":
        packed = lambda q, k, v, ids: dot_product_attention(q, k, v, mask=masks.Segments(ids) & masks.Causal())
        return Call(packed, (problem.ids,))
    if problem.case == "bias":
        return Call(lambda q, k, v, bias: dot_product_attention(q, k, v, bias, mask), (_bias(problem),))
    if problem.case == "alibi":
        slopes = jax.ShapeDtypeStruct((HEADS,), jnp.float32)
        return Call(lambda q, k, v, slopes: dot_product_attention(q, k, v, ALiBi(slopes), mask), (slopes,))
    if problem.case == "dropout":
        key = jax.ShapeDtypeStruct((2,), jnp.uint32)
        drop = lambda q, k, v, key: dot_product_attention(
            q, k, v, mask=mask, dropout_rate=0.1, dropout_key=jax.random.wrap_key_data(key)
        )
        return Call(drop, (key,))
    cap = CAP if problem.case == "soft cap" else None
    return Call(functools.partial(dot_product_attention, mask=mask, logits_soft_cap=cap))


def _splash(problem: Problem, forward: tuple[int, ...], backward: tuple[int, ...]) -> Call:
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
    from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as patterns

    shape, blocks = (problem.seq, problem.seq), {"forward": forward, "backward": backward}
    mask = patterns.CausalMask(shape) if problem.causal else patterns.FullMask(shape)
    mask = patterns.LocalMask(shape, (WINDOW - 1, 0), 0) if problem.case == "window" else mask
    kernel = splash.make_splash_mha(
        patterns.MultiHeadMask([mask] * HEADS),
        block_sizes=splash.BlockSizes(*forward, *backward, use_fused_bwd_kernel=True),
        head_shards=1,
        q_seq_shards=1,
        attn_logits_soft_cap=CAP if problem.case == "soft cap" else None,
    )
    if problem.case == "segments":
        packed = lambda q, k, v, ids: kernel(q, k, v, splash.SegmentIds(ids[0], ids[0]))
        return Call(packed, (problem.ids,), heads_first=True, batched=False, blocks=blocks)
    return Call(lambda q, k, v: kernel(q, k, v), heads_first=True, batched=False, blocks=blocks)


def _flash(problem: Problem) -> Call:
    from jax.experimental.pallas.ops.tpu import flash_attention as flash

    block = min(512, problem.seq)
    names = [x.name for x in dataclasses.fields(flash.BlockSizes)]
    blocks = flash.BlockSizes(**{x: 1 if x == "block_b" else block for x in names})
    attend = functools.partial(flash.flash_attention, causal=problem.causal, block_sizes=blocks)
    if problem.case == "segments":
        packed = lambda q, k, v, ids: attend(q, k, v, segment_ids=flash.SegmentIds(ids, ids))
        return Call(packed, (problem.ids,), heads_first=True)
    if problem.case == "bias":
        return Call(lambda q, k, v, bias: attend(q, k, v, bias), (_bias(problem),), heads_first=True)
    return Call(lambda q, k, v: attend(q, k, v), heads_first=True)


def _xla(problem: Problem) -> Call:
    attend = functools.partial(jax.nn.dot_product_attention, is_causal=problem.causal, implementation="xla")
    if problem.case == "segments":
        packed = lambda q, k, v, ids: attend(q, k, v, mask=(ids[:, None, :, None] == ids[:, None, None, :]))
        return Call(packed, (problem.ids,))
    if problem.case == "bias":
        return Call(attend, (_bias(problem),))
    window = (WINDOW - 1, 0) if problem.case == "window" else None
    return Call(functools.partial(attend, local_window_size=window))


def _bias(problem: Problem) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, HEADS, problem.seq, problem.seq), jnp.bfloat16)
