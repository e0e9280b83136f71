"""Flags, results and states that the scripts of this folder share."""

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results" / "cpu" / "reliability"


def run(figure: str, doc: str, count: int, measure: Callable[..., dict[str, Any]], recipes: Sequence[str] = ()) -> None:
    """Measures a figure, prints it, and writes it to bench/results/cpu/reliability/; exits with 1 where it was not
    reached.

    Args:
        figure: its name, R1 to R14.
        count: how many trials by default.
        measure: of the number of trials and an empty folder, and of a recipe where it takes one; its `reached` says
            whether the figure was.
        recipes: small recipes that it takes; the first by default.
    """
    parser = argparse.ArgumentParser(description=doc)
    parser.add_argument("--count", type=int, default=count, help="trials")
    parser.add_argument("--out", type=Path, help="file to write")
    if recipes:
        parser.add_argument("--recipe", choices=recipes, default=recipes[0], help="the small recipe that is run")
    parser.add_argument("--folder", type=Path, required=True, help="a new folder to work in")
    given = parser.parse_args()
    given.folder.mkdir(parents=True)
    begin = time.perf_counter()
    chosen = (given.recipe,) if recipes else ()
    numbers = measure(given.count, given.folder, *chosen)
    name = "-".join([figure, *(recipe for recipe in chosen if recipe != recipes[0])])
    about_it = {"recipe": given.recipe} if recipes else {}
    write(given.out or RESULTS / f"{name}.json", {"figure": figure, **about_it, **numbers, **about(begin)})
    for name, value in numbers.items():
        print(f"{name:32} {value}")
    sys.exit(0 if numbers["reached"] else 1)


def about(begin: float) -> dict[str, Any]:
    """Duration of a measurement since `begin`, of `time.perf_counter`, and its versions."""
    import jax

    seconds = round(time.perf_counter() - begin, 1)
    return {"seconds": seconds, "jax": jax.__version__, "python": platform.python_version(), "cpus": os.cpu_count()}


def write(path: Path, numbers: dict[str, Any]) -> None:
    """Writes a result as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")


def template_of(kind: float | str = 1.0) -> Any:
    """Shapes of a state: of about so many megabytes of model, average, moments, key and counter; or of the run of a
    small recipe.
    """
    import jax
    import jax.numpy as jnp
    import jax.random as jr

    if isinstance(kind, str):
        from bench.reliability.small import setup
        from train.engine.step import abstract_state

        return abstract_state(setup(kind))
    rows = int(kind * 2**20 / 4 / 4 / 256)
    array = jax.ShapeDtypeStruct
    part = lambda: {"up": {"weight": array((rows, 256), jnp.float32)}, "scale": array((7,), jnp.bfloat16)}
    state = {"model": part(), "ema": part(), "opt_state": ({"mu": part(), "nu": part()},)}
    return state | {"key": array((), jr.key(0).dtype), "step": array((), jnp.int32)}


def state_of(step: int, kind: float | str = 1.0) -> Any:
    """A state whose every number the step decides."""
    import jax
    import jax.numpy as jnp
    import jax.random as jr

    rng = np.random.default_rng(step)

    def fill(leaf: Any) -> Any:
        if not isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jr.key(step)
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            return jnp.asarray(rng.standard_normal(leaf.shape, np.float32), leaf.dtype)
        return jnp.full(leaf.shape, step, leaf.dtype)

    return jax.tree.map(fill, template_of(kind))


def is_state_of(step: int, state: Any, kind: float | str = 1.0) -> bool:
    """True where a state is bit for bit the one of a step."""
    from train.checkpoint.leaves import to_save

    first, second = to_save(state), to_save(state_of(step, kind))
    return first.keys() == second.keys() and all(
        np.asarray(first[name]).tobytes() == np.asarray(second[name]).tobytes() for name in first
    )
