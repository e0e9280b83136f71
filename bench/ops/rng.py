"""What a key stream costs where a program is traced and lowered, against keys split by hand.

  python -m bench.ops.rng          writes bench/results/cpu/rng.json

The model has 100 layers, each a projection with dropout, none of them scanned; lowered is its loss and gradient. By
hand the key is split once into as many keys as layers. Repetitions are interleaved; the ratio is that of the smallest
times, which what else the machine does disturbs least, and the median of the pairs' stands beside it. Beside it, what
drawing one key costs outside of any program.
"""

import gc
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr

from eqxgen import RNG
from eqxgen.nn import Dropout, Projection

OUT = Path(__file__).parents[1] / "results" / "cpu" / "rng.json"
LAYERS, DIM = 100, 32


def make() -> list[tuple[Projection, Dropout]]:
    return [(Projection(DIM, DIM, key=key), Dropout(0.1)) for key in jr.split(jr.key(0), LAYERS)]


def with_stream(layers, x, key):
    keys = RNG(key)
    for projection, dropout in layers:
        x = dropout(jax.nn.relu(projection(x)), key=next(keys))
    return jnp.sum(x)


def by_hand(layers, x, key):
    for (projection, dropout), key in zip(layers, jr.split(key, len(layers))):  # noqa: B020
        x = dropout(jax.nn.relu(projection(x)), key=key)
    return jnp.sum(x)


def lowering(loss: Callable, *inputs) -> float:
    """Seconds of the processor to trace and lower, with nothing kept from before."""
    jax.clear_caches()
    gc.collect()
    gc.disable()
    begin = time.process_time()
    eqx.filter_jit(eqx.filter_value_and_grad(loss)).lower(*inputs)
    elapsed = time.process_time() - begin
    gc.enable()
    return elapsed


def drawing(draws: int) -> tuple[float, float]:
    """Microseconds a key, from a stream and by `jax.random.fold_in`, outside of any program."""
    rng, key = RNG(0), jr.key(0)
    next(rng).block_until_ready()
    begin = time.perf_counter()
    for _ in range(draws):
        next(rng)
    middle = time.perf_counter()
    for i in range(draws):
        jr.fold_in(key, i)
    return (middle - begin) / draws * 1e6, (time.perf_counter() - middle) / draws * 1e6


def main(rounds: int = 15) -> None:
    inputs = make(), jnp.ones((8, DIM)), jr.key(1)
    times = {with_stream: [], by_hand: []}
    for way in times:
        lowering(way, *inputs)
    for i in range(rounds):
        for way in sorted(times, key=lambda way: way.__name__, reverse=bool(i % 2)):
            times[way].append(lowering(way, *inputs))
    drawn = [drawing(300) for _ in range(5)]
    result = {
        "layers": LAYERS,
        "rounds": rounds,
        "stream_s": round(min(times[with_stream]), 4),
        "by_hand_s": round(min(times[by_hand]), 4),
        "stream_over_by_hand": round(min(times[with_stream]) / min(times[by_hand]), 4),
        "median_of_pairs": round(statistics.median(a / b for a, b in zip(times[with_stream], times[by_hand])), 4),
        "draw_us": round(statistics.median(a for a, _ in drawn), 1),
        "fold_in_us": round(statistics.median(b for _, b in drawn), 1),
        "jax_version": jax.__version__,
        "python": sys.version.split()[0],
    }
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
