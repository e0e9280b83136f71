"""Whole train steps of `bench.gpu`: ours, the same with `jax.nn`'s attention and plain norms, and PyTorch's eager and compiled.

MaskGIT-base on 16 x 16 tokens of ImageNet with dropout, and DiT-B/2 on 32 x 32 x 4 latents: loss, gradients and AdamW, bfloat16 inside and
float32 parameters, on random data. `jax.nn`'s attention has no dropout, so its MaskGIT does without that of the probabilities.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax

from bench import gpu_torch
from bench.gpu_attention import Task
from bench.gpu_race import Side, Turn, compare
from eqxgen import ops
from eqxgen.configs import DiTConfig, MaskGITConfig
from eqxgen.models.dit import DiT
from eqxgen.models.maskgit import MaskGIT, masked_loss

RATE = 1e-4
# Examples, and the sizes of the models: tokens, codes and classes, or the latent's and classes.
FULL = {"DiT-B/2": (64, (32, 32, 4, 1000), DiTConfig.base()), "MaskGIT-base": (32, (256, 1024, 1000), MaskGITConfig.base())}
SMALL = {
    "DiT": (2, (4, 4, 3, 5), DiTConfig(dim=16, depth=2, heads=2, hidden_dim=24)),
    "MaskGIT": (2, (9, 7, 5), MaskGITConfig(dim=16, depth=2, heads=2, hidden_dim=24)),
}


@contextlib.contextmanager
def plain_ops(implementation: str) -> Iterator[None]:
    """`eqxgen` on `jax.nn`'s attention and on norms in XLA's operations."""
    before = ops.dot_product_attention, ops.layer_norm

    def attention(q, k, v, *, dropout_rate=0.0, dropout_key=None, **rest):
        return jax.nn.dot_product_attention(q, k, v, implementation=implementation, **rest)

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


def dit(batch: int, sizes: tuple[int, ...], config: DiTConfig) -> tuple[Any, Callable, tuple]:
    """The same for the paper's simple loss: the noise's mean square error (Ho et al. 2020, equation 14), labels dropped one time in ten."""
    *shape, classes = sizes
    model = eqx.filter_jit(DiT)(*shape, classes, config, key=jr.key(0))
    latent, label = jr.normal(jr.key(1), (batch, *shape), jnp.bfloat16), jr.randint(jr.key(2), (batch,), 0, classes)
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


def in_jax(make: Callable[[], tuple[Any, Callable, tuple]]) -> Side:
    """A train step that keeps its state between calls."""
    model, loss, batch = make()
    arrays, static = eqx.partition(model, eqx.is_inexact_array)
    optimizer = optax.adamw(RATE)

    def mean_loss(arrays, keys):
        half = eqx.combine(jax.tree.map(lambda a: a.astype(jnp.bfloat16), arrays), static)
        return jnp.mean(jax.vmap(functools.partial(loss, half))(*batch, keys))

    def step(arrays, state, key):
        value, grads = jax.value_and_grad(mean_loss)(arrays, jr.split(key, batch[0].shape[0]))
        updates, state = optimizer.update(grads, state, arrays)
        return optax.apply_updates(arrays, updates), state, jr.fold_in(key, 0), value

    # A step gives away what it is given, and the model is every contender's.
    held = [jax.tree.map(jnp.copy, arrays), optimizer.init(arrays), jr.key(3)]
    compiled = jax.jit(step, donate_argnums=(0, 1, 2)).lower(*held).compile()

    def run(calls: int) -> None:
        for _ in range(calls):
            *held[:], value = compiled(*held)
        jax.block_until_ready(value)

    return run


def in_plain_jax(make: Callable[[], tuple[Any, Callable, tuple]], implementation: str) -> Side:
    with plain_ops(implementation):
        return in_jax(make)


def steps(tiny: bool) -> Iterator[Task]:
    """A row for each model."""
    for name, (batch, sizes, config) in (SMALL if tiny else FULL).items():
        yield f"{name}, batch {batch}", functools.partial(_row, batch, sizes, config, tiny)


def _row(batch: int, sizes: tuple[int, ...], config: Any, tiny: bool, turn: Turn) -> dict[str, Any]:
    family = "dit" if isinstance(config, DiTConfig) else "maskgit"
    make = functools.cache(functools.partial({"dit": dit, "maskgit": maskgit}[family], batch, sizes, config))
    makers = {
        "ours": lambda: in_jax(make),
        "jax.nn xla attention, plain norms": lambda: in_plain_jax(make, "xla"),
        "jax.nn cudnn attention, plain norms": lambda: in_plain_jax(make, "cudnn"),
        "torch eager": lambda: gpu_torch.step(family, batch, sizes, config, RATE, compiled=False),
        "torch compiled": lambda: gpu_torch.step(family, batch, sizes, config, RATE, compiled=True),
    }
    if tiny:
        # Compiling it takes a CPU minutes.
        makers.pop("torch compiled")
    return compare(makers, turn, 0.05 if tiny else 8.0)
