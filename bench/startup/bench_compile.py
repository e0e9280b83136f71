"""Compilation: train steps and stacks by depth, published sizes of GPT, and the cost of a key stream in a trace."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax
import pytest

from bench.machine import full
from bench.race import Side
from eqxgen import RNG
from eqxgen.nn import Dropout, Projection, Selformer, Stack
from train import gpt, maskgit
from train.engine.dryrun import abstract_update, lower
from train.parallel import make_mesh
from train.tasks.facts import TextFacts, TokenFacts

LAYERS, DIM = 100 if full() else 25, 32


def cold(function: Callable[[], Any]) -> Callable[[], Side]:
    """A contender without anything traced or compiled before."""

    def call() -> None:
        jax.clear_caches()
        function()

    return lambda: Side(call)


def digits_step(depth: int) -> None:
    """Lowers and compiles the train step of the digits recipe."""
    preset = maskgit.PRESETS["digits"]
    config = dataclasses.replace(preset, model=dataclasses.replace(preset.model, depth=depth))
    program = maskgit.RECIPE.program(config, TokenFacts((8, 8, 1), 10, 64, 17))
    lower(*abstract_update(config, program, make_mesh())).compile()


def gpt_step(name: str) -> None:
    """The same of a published size of GPT-2, without any array."""
    config = dataclasses.replace(gpt.PRESETS[name], batch_size=8, precision="float32")
    program = gpt.RECIPE.program(config, TextFacts(50257, config.model.context))
    lower(*abstract_update(config, program, make_mesh())).compile()


def stack_step(depth: int) -> None:
    """Builds a `Stack` with dropout and lowers its step of AdamW."""
    optimiser = optax.adamw(1e-3)

    def step(stack, state, x, key):
        run = lambda stack: jnp.sum(jax.vmap(lambda x, key: stack(x, key=key))(x, jr.split(key, len(x))) ** 2)
        updates, state = optimiser.update(eqx.filter_grad(run)(stack), state, eqx.filter(stack, eqx.is_array))
        return eqx.apply_updates(stack, updates), state

    stack = Stack(lambda key: Selformer(64, 4, dropout=0.1, key=key), depth, key=jr.key(0))
    state = optimiser.init(eqx.filter(stack, eqx.is_array))
    eqx.filter_jit(step).lower(stack, state, jnp.ones((2, 16, 64)), jr.key(1))


SIZES = {"digits": (digits_step, 24, 6), "stack": (stack_step, 24, 6), "GPT-2": (gpt_step, "gpt2-xl", "gpt2")}


@pytest.mark.parametrize("name", SIZES if full() else ["digits"])
def bench_depth(race: Callable, name: str) -> None:
    """The deeper model as `ours`, the shallower as its rival."""
    compile_step, large, small = SIZES[name]
    makers = {"ours": cold(lambda: compile_step(large)), str(small): cold(lambda: compile_step(small))}
    race(makers, f"compilation of {name}, {large}", once=True, least=3 if full() else 2)


def with_stream(layers, x, key):
    keys = RNG(key)
    for projection, dropout in layers:
        x = dropout(jax.nn.relu(projection(x)), key=next(keys))
    return jnp.sum(x)


def by_hand(layers, x, key):
    for (projection, dropout), one in zip(layers, jr.split(key, len(layers))):
        x = dropout(jax.nn.relu(projection(x)), key=one)
    return jnp.sum(x)


def bench_keys(race: Callable) -> None:
    """Tracing and lowering of a gradient with a key stream, against keys split once by hand."""
    layers = [(Projection(DIM, DIM, key=key), Dropout(0.1)) for key in jr.split(jr.key(0), LAYERS)]
    inputs = layers, jnp.ones((8, DIM)), jr.key(1)
    gradient = lambda loss: eqx.filter_jit(eqx.filter_value_and_grad(loss)).lower(*inputs)
    makers = {"ours": cold(lambda: gradient(with_stream)), "by hand": cold(lambda: gradient(by_hand))}
    race(makers, "tracing of keys", once=True, least=5, settings={"layers": LAYERS})


def bench_draw(race: Callable) -> None:
    """One key outside any program, against `jax.random.fold_in`."""
    rng, key, count = RNG(0), jr.key(0), iter(range(10**9))
    fold = functools.partial(jr.fold_in, key)
    race({"ours": lambda: Side(lambda: next(rng)), "fold_in": lambda: Side(lambda: fold(next(count)))}, "draw of a key")
