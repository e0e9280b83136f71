"""Whole train steps of `bench.gpu`: ours, the same with `jax.nn`'s attention and plain norms, and PyTorch's eager and
compiled.

DiT-B/2 on 32 x 32 x 4 latents, GPT-2 small on 1,024 tokens, and MaskGIT-base on 16 x 16 tokens of ImageNet with
dropout: loss, gradients and AdamW, bfloat16 inside and float32 parameters, on random data. `jax.nn`'s attention has no
dropout of the probabilities. MFU: FLOPs of the model per second over the peak of the device's data sheet
(`train.report.peak`).
"""

import contextlib
import functools
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax

from bench.gpu import torch as gpu_torch
from bench.gpu.attention import Task
from bench.race import Makers, Side, Turn, compare
from bench.train_step import stepping, update_of
from eqxgen import ops
from eqxgen.configs import DiTConfig, GPTConfig, MaskGITConfig
from eqxgen.losses.masked import masked_loss
from eqxgen.losses.tokens import next_token_losses
from eqxgen.models.denoisers.dit import DiT
from eqxgen.models.gpt import GPT
from eqxgen.models.maskgit import MaskGIT
from train.report.peak import flops_of, peak_of
from train.report.timeline import kinds_of, newest, read_trace, rows_of

RATE = 1e-4
# Examples, and the sizes of the models: the latent's and classes, the vocabulary, or tokens, codes and classes.
FULL = {
    "DiT-B/2": (64, (32, 32, 4, 1000), DiTConfig.base()),
    "GPT-2 small": (16, (50257,), GPTConfig.gpt2()),
    "MaskGIT-base": (32, (256, 1024, 1000), MaskGITConfig.base()),
}
SMALL = {
    "DiT": (2, (4, 4, 3, 5), DiTConfig(dim=16, depth=2, heads=2, hidden_dim=24)),
    "GPT": (2, (11,), GPTConfig(dim=16, depth=2, heads=2, context=8)),
    "MaskGIT": (2, (9, 7, 5), MaskGITConfig(dim=16, depth=2, heads=2, hidden_dim=24)),
}


@contextlib.contextmanager
def plain_ops(implementation: Any) -> Iterator[None]:
    """`eqxgen` on `jax.nn`'s attention and on norms in XLA's operations."""
    before = ops.dot_product_attention, ops.layer_norm

    def attention(q, k, v, bias=None, mask=None, *, dropout_rate=0.0, dropout_key=None, **rest):
        return jax.nn.dot_product_attention(q, k, v, bias, mask, implementation=implementation, **rest)

    ops.dot_product_attention = attention  # pyright: ignore[reportAttributeAccessIssue]
    ops.layer_norm = functools.partial(before[1], implementation="xla")  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        ops.dot_product_attention, ops.layer_norm = before  # pyright: ignore[reportAttributeAccessIssue]


def maskgit(batch: int, sizes: tuple[int, ...], config: MaskGITConfig) -> tuple[Any, Callable, tuple]:
    """(model, loss of one example, a batch of them)."""
    tokens, codes, classes = sizes
    model = eqx.filter_jit(MaskGIT)(tokens, codes, classes, config, key=jr.key(0))
    ids, label = jr.randint(jr.key(1), (batch, tokens), 0, codes), jr.randint(jr.key(2), (batch,), 0, classes)

    def loss(model, ids, label, key):
        total, _, count = masked_loss(model, ids, label, key=key)
        return total / count

    return model, loss, (ids, label)


def gpt(batch: int, sizes: tuple[int, ...], config: GPTConfig) -> tuple[Any, Callable, tuple]:
    """The same for a language model: the mean cross-entropy of each token but the first of a window."""
    (vocab,) = sizes
    model = eqx.filter_jit(GPT)(vocab, config, key=jr.key(0))
    ids = jr.randint(jr.key(1), (batch, config.context + 1), 0, vocab)
    return model, lambda model, ids, key: jnp.mean(next_token_losses(model, ids[:-1], ids[1:], key=key)), (ids,)


def dit(batch: int, sizes: tuple[int, ...], config: DiTConfig) -> tuple[Any, Callable, tuple]:
    """The same for the paper's simple loss: the noise's mean square error (Ho et al. 2020, equation 14), labels dropped
    one time in ten.
    """
    *shape, classes = sizes
    model = eqx.filter_jit(DiT)(*shape, classes, config, key=jr.key(0))
    latent, label = jr.normal(jr.key(1), (batch, *shape)), jr.randint(jr.key(2), (batch,), 0, classes)
    kept = jnp.cumprod(1 - jnp.linspace(1e-4, 0.02, 1000))

    def loss(model, latent, label, key):
        time_key, noise_key, label_key = jr.split(key, 3)
        time = jr.randint(time_key, (), 0, 1000)
        noise = jr.normal(noise_key, latent.shape, latent.dtype)
        share = kept[time]
        noised = (jnp.sqrt(share) * latent + jnp.sqrt(1 - share) * noise).astype(latent.dtype)
        label = jnp.where(jr.uniform(label_key) < 0.1, model.null_label, label)
        said = model(noised, time.astype(jnp.float32), label, key=key)[..., : latent.shape[-1]]
        return jnp.mean((said - noise.astype(jnp.float32)) ** 2)

    return model, loss, (latent, label)


FAMILIES = {DiTConfig: ("dit", dit), GPTConfig: ("gpt", gpt), MaskGITConfig: ("maskgit", maskgit)}
Make = Callable[[], tuple[Any, Callable, tuple]]


def update(make: Make, dtype: Any = jnp.bfloat16) -> tuple[Callable, list[Any]]:
    """A train step and its arguments: (parameters, optimiser state, key) -> (the same after the step, loss)."""
    model, loss, batch = make()
    arrays, static = eqx.partition(model, eqx.is_inexact_array)
    batch = [x.astype(dtype) if eqx.is_inexact_array(x) else x for x in batch]  # a net computes in its input's dtype

    def mean_loss(arrays, keys):
        half = eqx.combine(jax.tree.map(lambda a: a.astype(dtype), arrays), static)
        return jnp.mean(jax.vmap(functools.partial(loss, half))(*batch, keys))

    return update_of(mean_loss, arrays, optax.adamw(RATE), batch[0].shape[0])


def in_jax(make: Make, dtype: Any = jnp.bfloat16) -> Side:
    """A train step that keeps its state between calls."""
    step, held = update(make, dtype)
    # A step donates its arguments, and the contenders share the model.
    held[0] = jax.tree.map(jnp.copy, held[0])
    return stepping(step, held)


def in_plain_jax(make: Make, implementation: str, dtype: Any = jnp.bfloat16) -> Side:
    with plain_ops(implementation):
        return in_jax(make, dtype)


def steps(tiny: bool) -> Iterator[Task]:
    """A row for each model."""
    for name, (batch, sizes, config) in (SMALL if tiny else FULL).items():
        yield f"{name}, batch {batch}", functools.partial(_row, batch, sizes, config, tiny)


def contenders(batch: int, sizes: tuple[int, ...], config: Any, dtype: Any = jnp.bfloat16) -> tuple[Make, Makers]:
    """The maker of the model, and the makers of all contenders."""
    family, build = FAMILIES[type(config)]
    make = functools.cache(functools.partial(build, batch, sizes, config))
    half = dtype == jnp.bfloat16
    torch = functools.partial(gpu_torch.step, family, batch, sizes, config, RATE, half=half)
    return make, {
        "ours": functools.cache(functools.partial(in_jax, make, dtype)),  # once for the race and for the profile
        "jax.nn xla attention, plain norms": functools.partial(in_plain_jax, make, "xla", dtype),
        "jax.nn cudnn attention, plain norms": functools.partial(in_plain_jax, make, "cudnn", dtype),
        "torch eager": functools.partial(torch, compiled=False),
        "torch compiled": functools.partial(torch, compiled=True),
    }


def on_cpu(makers: Makers) -> Makers:
    """Without cuDNN, and without PyTorch's compiled step, whose compilation takes minutes on a CPU."""
    return {name: make for name, make in makers.items() if "cudnn" not in name and name != "torch compiled"}


def _row(batch: int, sizes: tuple[int, ...], config: Any, tiny: bool, turn: Turn) -> dict[str, Any]:
    make, makers = contenders(batch, sizes, config)
    row = compare(on_cpu(makers) if tiny else makers, turn, 0.05 if tiny else 8.0)
    parts, reason = turn.attempt("ours", lambda: profile(makers["ours"]()))
    row |= {"share of ours": parts} if reason is None else {"left out": row["left out"] | {"profile": reason}}
    return row | rates_of(row["ms"], make, batch * tokens_of(sizes, config))


def rates_of(times: dict[str, float], make: Make, tokens: int) -> dict[str, dict[str, float]]:
    """`rates` of a model on the device at hand."""
    step, held = update(make)
    return rates(times, tokens, flops_of(step, *held), peak_of(jax.devices()[0].device_kind))


def rates(times: dict[str, float], tokens: int, flops: int, peak: float | None) -> dict[str, dict[str, float]]:
    """Tokens a second from milliseconds of a step, and the share of the device's peak where that is known."""
    found = {"tokens/s": {name: 1e3 * tokens / ms for name, ms in times.items()}}
    return found | ({"MFU": {name: 1e3 * flops / ms / peak for name, ms in times.items()}} if peak else {})


def profile(side: Side, calls: int = 3, count: int = 12) -> dict[str, float]:
    """Shares of the device's time by kind of operation, longest first, from a trace of some calls."""
    side.seconds()
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            side.seconds(calls)
        kinds = kinds_of(rows_of(read_trace(newest(pathlib.Path(folder)))))
    whole = sum(kind.micros for kind in kinds)
    return {kind.name: kind.micros / whole for kind in kinds[:count]}


def tokens_of(sizes: tuple[int, ...], config: Any) -> int:
    """Tokens of an example, without those of its label."""
    match config:
        case DiTConfig():
            return sizes[0] * sizes[1] // config.patch**2
        case GPTConfig():
            return config.context
        case _:
            return sizes[0]
