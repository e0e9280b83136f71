"""Layers on MNIST-1D (Greydanus and Kobak 2020, arXiv:2011.14439): `python -m bench.models.mnist1d`, or with names.

Small classifiers of our layers, on 4,000 sequences with 1,000 held out, of the published generator's default seed. Each
makes 6,000 updates of 100 examples; the sizes of the first four are those of the paper. Writes
bench/results/cpu/mnist1d.json: accuracy on the held-out part after the last update, of two or four seeds, and the
paper's; parameters; wall-clock and processor seconds of one seed without compilation.
"""

import json
import pathlib
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

from bench.machine import about
from eqxgen.losses.tokens import cross_entropy
from eqxgen.nn import (
    GRU,
    LSTM,
    MLP,
    Convolution1D,
    LayerNorm,
    LearnedPositions,
    Projection,
    SelfAttention,
    Stack,
    TransformerBlock,
)
from train.data.mnist1d import CLASSES, SEQ, mnist1d

STEPS, BATCH, SEEDS = 6000, 100, (0, 1, 2, 3)
RESULT = pathlib.Path(__file__).parents[1] / "results" / "cpu" / "mnist1d.json"


class Flat(eqx.Module):
    """Layers in sequence, rectified between, over the 40 values at once."""

    layers: tuple[Projection, ...]

    def __init__(self, widths: tuple[int, ...], *, key: Any):
        keys = jr.split(key, len(widths))
        self.layers = tuple(Projection(old, new, key=k) for old, new, k in zip((SEQ, *widths), widths, keys))

    def __call__(self, x: jax.Array) -> jax.Array:
        for layer in self.layers[:-1]:
            x = jax.nn.relu(layer(x))
        return self.layers[-1](x)


class Convolutions(eqx.Module):
    """Three convolutions of stride 2, rectified, and a projection of all their outputs."""

    convs: tuple[Convolution1D, ...]
    head: Projection

    def __init__(self, channels: int, *, key: Any):
        keys = jr.split(key, 4)
        sizes = ((1, 5), (channels, 3), (channels, 3))
        make = lambda old, kernel, key: Convolution1D(old, channels, kernel=kernel, stride=2, padding=1, key=key)
        self.convs = tuple(make(old, kernel, key) for (old, kernel), key in zip(sizes, keys))
        self.head = Projection(5 * channels, CLASSES, key=keys[3])

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x[:, None]
        for conv in self.convs:
            x = jax.nn.relu(conv(x))
        return self.head(x.reshape(-1))


class Recurrent(eqx.Module):
    """A recurrent layer in either direction, and a projection of all their outputs."""

    forward: Any
    backward: Any
    head: Projection

    def __init__(self, layer: Callable[..., Any], dim: int, *, key: Any):
        keys = jr.split(key, 3)
        self.forward, self.backward = layer(1, dim, key=keys[0]), layer(1, dim, key=keys[1])
        self.head = Projection(2 * SEQ * dim, CLASSES, key=keys[2])

    def __call__(self, x: jax.Array) -> jax.Array:
        x = x[:, None]
        both = self.forward(x)[0], self.backward(x[::-1])[0][::-1]
        return self.head(jnp.concatenate(both, axis=-1).reshape(-1))


class Transformer(eqx.Module):
    """Windows of 8 values as tokens, blocks with attention, mean over the tokens."""

    windows: Convolution1D
    positions: LearnedPositions
    stack: Stack
    norm: LayerNorm
    head: Projection

    def __init__(self, dim: int, depth: int, *, key: Any):
        keys = jr.split(key, 4)
        self.windows = Convolution1D(1, dim, kernel=8, stride=4, padding=2, key=keys[0])
        self.positions = LearnedPositions(SEQ // 4, dim, key=keys[1])
        self.stack = Stack(lambda key: block(dim, key), depth, key=keys[2])
        self.norm, self.head = LayerNorm(dim), Projection(dim, CLASSES, key=keys[3])

    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.positions(self.windows(x[:, None]))
        return self.head(self.norm(jnp.mean(self.stack(x), axis=0)))


def block(dim: int, key: Any) -> TransformerBlock:
    """A block of the transformer."""
    attention_key, mlp_key = jr.split(key)
    attention = SelfAttention(dim, 4, key=attention_key)
    mlp, norm = MLP(dim, 2 * dim, key=mlp_key), LayerNorm(dim)
    return TransformerBlock(attention, mlp, attention_norm=norm, mlp_norm=norm)


class Row(NamedTuple):
    """A classifier.

    Attributes:
        make: from a key.
        paper: accuracy in the paper, in %; None where it has none.
        rate: learning rate; the paper's where it has one.
        decay: of the weights, without the biases.
        cosine: the rate falls to 0.
        seeds: how many of `SEEDS`.
    """

    make: Callable[[Any], Any]
    paper: float | None
    rate: float = 1e-2
    decay: float = 0.0
    cosine: bool = False
    seeds: int = 2


ROWS = {
    "linear": Row(lambda key: Flat((CLASSES,), key=key), 32.0, rate=1e-1, cosine=True, seeds=4),
    "MLP": Row(lambda key: Flat((100, 100, CLASSES), key=key), 68.0, seeds=4),
    "convolution": Row(lambda key: Convolutions(25, key=key), 94.0, decay=0.1, cosine=True),
    "GRU": Row(lambda key: Recurrent(GRU, 6, key=key), 91.0, cosine=True),
    "LSTM": Row(lambda key: Recurrent(LSTM, 6, key=key), None, cosine=True),
    "transformer": Row(lambda key: Transformer(32, 2, key=key), None, rate=3e-3, decay=0.1, cosine=True),
}


def accuracy(model: Any, rows: jax.Array, labels: np.ndarray) -> float:
    """In %."""
    run = eqx.filter_jit(lambda model, rows: jnp.argmax(jax.vmap(model)(rows), axis=-1))
    guesses = run(model, rows)
    return 100 * float(np.mean(np.asarray(guesses) == labels))


def trained(row: Row, seed: int, rows: jax.Array, labels: jax.Array) -> tuple[Any, dict[str, float]]:
    """A model after all updates, and what they took."""
    make_key, data_key = jr.split(jr.key(seed))
    rate = optax.cosine_decay_schedule(row.rate, STEPS) if row.cosine else row.rate
    kernels = lambda params: jax.tree.map(lambda x: x.ndim >= 2, params)
    optimiser = optax.adamw(rate, weight_decay=row.decay, mask=kernels)
    params, static = eqx.partition(row.make(make_key), eqx.is_inexact_array)

    def loss(params: Any, places: jax.Array) -> jax.Array:
        logits = jax.vmap(eqx.combine(params, static))(rows[places])
        return jnp.mean(cross_entropy(logits, labels[places]))

    @jax.jit
    def step(state: Any, places: jax.Array) -> Any:
        params, inner = state
        updates, inner = optimiser.update(jax.grad(loss)(params, places), inner, params)
        return optax.apply_updates(params, updates), inner

    chosen = np.asarray(jr.randint(data_key, (STEPS, BATCH), 0, len(rows)))
    state = params, optimiser.init(params)
    jax.block_until_ready(step(state, chosen[0]))
    wall, cpu = time.perf_counter(), time.process_time()
    for number, places in enumerate(chosen):
        state = step(state, places)
        if number % 8 == 7:
            jax.block_until_ready(state)
    took = {"seconds": time.perf_counter() - wall, "processor seconds": time.process_time() - cpu}
    return eqx.combine(state[0], static), took


def main(names: list[str]) -> None:
    """Prints and keeps the rows, those of other names as they are."""
    data = mnist1d()
    rows, labels = jnp.asarray(data.train, jnp.float32), jnp.asarray(data.train_labels)
    for name in names or ROWS:
        row, scores, took = ROWS[name], [], {}
        for seed in SEEDS[: row.seeds]:
            model, took = trained(row, seed, rows, labels)
            scores.append(accuracy(model, jnp.asarray(data.test, jnp.float32), data.test_labels))
        size = sum(x.size for x in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)))
        found = json.loads(RESULT.read_text(encoding="utf-8"))["rows"] if RESULT.exists() else {}
        found[name] = {"accuracy": scores, "mean": float(np.mean(scores)), "paper": row.paper}
        found[name] |= {"parameters": size, **{word: round(value, 1) for word, value in took.items()}}
        print(name, json.dumps(found[name]), flush=True)
        kept = {name: found[name] for name in ROWS if name in found}
        text = json.dumps({"about": about() | {"steps": STEPS, "batch": BATCH}, "rows": kept}, indent=1)
        RESULT.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
