"""Attention's rows of `bench.gpu`: right or wrong against a float64 or float32 reference, and times against the rivals."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bench.gpu_race import Clock, jax_side, race, torch_side, try_sides
from kernels import dot_product_attention, masks

OURS = ("mosaic_gpu", "triton")
# The grid of the FlashAttention-3 paper: batch * seq and heads * head_dim are constant.
TOKENS, WIDTH = 16384, 2048
LENGTHS, HEAD_DIMS = (16384, 4096, 1024, 8192, 2048, 512), (128, 64, 256)


def draw(shape: tuple[int, ...], dtype: Any, seed: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32), dtype)


def operands(batch: int, seq: int, heads: int, head_dim: int, dtype: Any = jnp.bfloat16) -> list[jax.Array]:
    """Query, key, value and the output's cotangent, in random numbers."""
    return [draw((batch, seq, heads, head_dim), dtype, seed) for seed in range(4)]


def masks_by_name(batch: int, seq: int) -> dict[str, Any]:
    ids = jnp.asarray(np.sort(np.random.default_rng(5).integers(0, 12, (batch, seq)), 1))
    return {
        "none": None,
        "causal": masks.Causal(),
        "window": masks.Window(seq // 8, 0),
        "packed": masks.Causal() & masks.Segments(ids),
        "prefix": masks.PrefixLM(seq // 4),
        "lengths": masks.Lengths(seq - 3, seq - 5),
    }


def correctness(clock: Clock, tiny: bool) -> Iterator[dict[str, Any]]:
    """Each kernel's largest error of the output and the gradients, over that of `jax.nn` or our XLA form in the same dtype."""
    batch, seq, heads = (1, 32, 2) if tiny else (2, 1003, 4)
    cases = [(dim, dtype, mask, False) for dim in (64, 128, 256) for dtype in ("bfloat16", "float16") for mask in ("none", "causal")]
    cases += [(64, "bfloat16", mask, True) for mask in ("none", "window", "packed", "prefix", "lengths")]
    cases += [(64, "float32", "causal", True), (96, "bfloat16", "causal", False), (32, "bfloat16", "none", True)]
    for dim, dtype, mask, bias in cases[:2] if tiny else cases:
        if clock.left() < 0:
            return
        arrays = operands(batch, seq, heads, dim, dtype)
        extra = (draw((heads, seq, seq), dtype, 9),) if bias else ()
        call = functools.partial(dot_product_attention, mask=masks_by_name(batch, seq)[mask])

        def both(q, k, v, dout, *bias, implementation, call=call):
            out, pull = jax.vjp(functools.partial(call, implementation=implementation), q, k, v, *bias)
            return out, *pull(dout)

        with jax.enable_x64(True):
            wide = "float32" if seq > 512 else "float64"
            exact = jax.jit(functools.partial(both, implementation="reference"))(*(x.astype(wide) for x in (*arrays, *extra)))
        base = jax.jit(functools.partial(both, implementation="xla"))(*arrays, *extra)
        error = lambda got, exact=exact: max(
            float(jnp.abs(g.astype(jnp.float32) - t.astype(jnp.float32)).max()) for g, t in zip(got, exact)
        )
        row: dict[str, Any] = {"case": f"D{dim} {dtype} {mask}{' bias' if bias else ''}", "xla": error(base)}
        for name in ("xla",) if tiny else (*OURS, None):
            try:
                got = jax.jit(functools.partial(both, implementation=name))(*arrays, *extra)
            except NotImplementedError as reason:
                row[str(name)] = f"refused: {str(reason)[:120]}"
                continue
            here = errors(got, exact)
            row[f"{name}: worst array, times xla"] = max(a / max(b, 1e-9) for a, b in zip(here, least))
            row[f"{name} ok"] = all(a <= 2 * b + 1e-5 for a, b in zip(here, least))
        yield row


def errors(got: Any, exact: Any) -> list[float]:
    """The largest error of each array, as a share of its largest element."""
    wide = lambda x: np.asarray(x.astype(jnp.float32), np.float64)
    return [float(np.abs(wide(g) - wide(t)).max() / max(np.abs(wide(t)).max(), 1e-9)) for g, t in zip(got, exact)]


def rivals(arrays: list[jax.Array], causal: bool, direction: str) -> dict[str, Callable]:
    """Makers of the contenders for one shape."""
    q, k, v, dout = arrays

    def in_jax(attend: Callable):
        def make():
            if direction == "forward":
                return jax_side(attend, q, k, v)
            pull = jax.jit(lambda q, k, v: jax.vjp(attend, q, k, v)[1])(q, k, v)
            return jax_side(lambda pull, dout: pull(dout), pull, dout)

        return make

    def in_torch():
        import torch

        place = "cuda" if torch.cuda.is_available() else "cpu"
        a, b, c, d = (torch.randn(x.shape, device=place, dtype=torch.bfloat16).transpose(1, 2).contiguous() for x in arrays)
        sdpa = functools.partial(torch.nn.functional.scaled_dot_product_attention, is_causal=causal)
        if direction == "forward":
            return torch_side(lambda: sdpa(a, b, c))
        inputs = [x.requires_grad_() for x in (a, b, c)]
        out = sdpa(*inputs)
        return torch_side(lambda: torch.autograd.grad(out, inputs, d, retain_graph=True))

    def in_tokamax():
        import tokamax

        return in_jax(functools.partial(tokamax.dot_product_attention, is_causal=causal))()

    ours = functools.partial(dot_product_attention, is_causal=causal)
    theirs = functools.partial(jax.nn.dot_product_attention, is_causal=causal)
    return {
        "ours": in_jax(ours),
        **{name: in_jax(functools.partial(ours, implementation=name)) for name in OURS},
        "jax.nn cudnn": in_jax(functools.partial(theirs, implementation="cudnn")),
        "jax.nn xla": in_jax(functools.partial(theirs, implementation="xla")),
        "torch sdpa": in_torch,
        "tokamax": in_tokamax,
    }


def grid(clock: Clock, tiny: bool) -> Iterator[dict[str, Any]]:
    """The paper's grid, both directions; the rows that say most come first."""
    tokens, width, lengths, dims = (64, 64, (32,), (32,)) if tiny else (TOKENS, WIDTH, LENGTHS, HEAD_DIMS)
    slowest = 0.0
    for seq in lengths:
        for dim in dims:
            for causal in (False, True):
                for direction in ("forward", "backward"):
                    name = f"{direction} D{dim} T{seq} {'causal' if causal else 'full'}"
                    before = clock.left()
                    if before < 1.5 * slowest:
                        yield {"case": name, "left out": "the time budget"}
                        continue
                    heads = width // dim
                    makers = rivals(operands(tokens // seq, seq, heads, dim), causal, direction)
                    if seq > 4096:
                        # Its logits alone are 16 GiB and more.
                        makers.pop("jax.nn xla")
                    flops = 4 * tokens * seq * width * (0.5 if causal else 1.0) * (1.0 if direction == "forward" else 2.5)
                    yield timed(name, makers, flops, 0.05 if tiny else 1.0)
                    slowest = max(slowest, before - clock.left())


def timed(name: str, makers: dict[str, Callable], flops: float, seconds: float) -> dict[str, Any]:
    """Milliseconds, TFLOP/s and times of ours over one shape's contenders."""
    sides, reasons = try_sides(makers)
    times = race(sides, seconds)
    row: dict[str, Any] = {"case": name, "ms": times, "TFLOP/s": {n: flops / t / 1e9 for n, t in times.items()}, "left out": reasons}
    if "ours" in times:
        row["times ours"] = {n: t / times["ours"] for n, t in times.items() if n != "ours"}
    return row


def special(clock: Clock, tiny: bool) -> Iterator[dict[str, Any]]:
    """Small heads with a bias, packed documents and a sliding window, against dense masks."""
    scale = 32 if tiny else 1
    cases: list[tuple[str, tuple[int, int, int, int], Any]] = [
        (f"bias {heads} heads of 32", (384 // scale, 384 // scale, heads, 32), "bias") for heads in (4, 8)
    ]
    cases += [(f"packed 12 documents T{seq}", (2, seq // scale, 16, 128), "packed") for seq in (8192, 32768)]
    cases += [("window 1024 D64 T16384", (1, 16384 // scale, 32, 64), "window")]
    for name, (batch, seq, heads, dim), what in cases[:1] if tiny else cases:
        for direction in ("forward", "backward"):
            if clock.left() < 0:
                yield {"case": f"{name} {direction}", "left out": "the time budget"}
                continue
            q, k, v, dout = operands(batch, seq, heads, dim)
            extra = (draw((1, heads, seq, seq), jnp.bfloat16, 9),) if what == "bias" else ()
            mask = masks_by_name(batch, seq)["packed"] if what == "packed" else masks.Window(1024 // scale, 0) if what == "window" else None

            def make(attend, extra=extra, q=q, k=k, v=v, dout=dout, direction=direction):
                def made():
                    if direction == "forward":
                        return jax_side(attend, q, k, v, *extra)
                    pull = jax.jit(lambda *x: jax.vjp(attend, *x)[1])(q, k, v, *extra)
                    return jax_side(lambda pull, dout: pull(dout), pull, dout)

                return made

            ours = lambda q, k, v, *bias, implementation=None, mask=mask: dot_product_attention(
                q, k, v, *bias, mask=mask, implementation=implementation
            )
            makers = {"ours": make(ours)} | {n: make(functools.partial(ours, implementation=n)) for n in (*OURS, "xla")}
            if what == "bias":
                theirs = lambda q, k, v, bias, implementation: jax.nn.dot_product_attention(q, k, v, bias, implementation=implementation)
                makers |= {f"jax.nn {n}": make(functools.partial(theirs, implementation=n)) for n in ("cudnn", "xla")}
            elif what == "window":
                window = lambda q, k, v: jax.nn.dot_product_attention(q, k, v, local_window_size=(1024 // scale, 0), implementation="cudnn")
                makers["jax.nn cudnn"] = make(window)
            elif seq <= 8192:
                dense = np.tril(np.ones((seq, seq), bool))[None, None]
                theirs = lambda q, k, v, dense=dense: jax.nn.dot_product_attention(q, k, v, mask=dense, implementation="cudnn")
                makers["jax.nn cudnn, dense mask"] = make(theirs)
            yield timed(f"{name} {direction}", makers, 4.0 * batch * heads * seq * seq * dim, 0.05 if tiny else 1.0)
