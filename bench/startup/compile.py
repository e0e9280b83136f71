"""What a user waits for before the first step: imports, `--help`, and compilation by depth.

  python -m bench.startup.compile          writes bench/results/cpu/compile.json
  python -m bench.startup.compile stack    measures what is said of `Stack` alone, and keeps the rest of that file

Ratios are medians of interleaved repetitions.
"""

import dataclasses
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import optax

from eqxgen.nn import Selformer, Stack
from train import maskgit
from train.engine.dryrun import abstract_update, lower
from train.parallel import make_mesh
from train.tasks.facts import TokenFacts

OUT = Path(__file__).parents[1] / "results" / "cpu" / "compile.json"


def seconds(*command: str) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def imports(rounds: int) -> dict[str, float]:
    """`import eqxgen` with what it is for, against `import equinox, optax`."""
    ours, theirs, bare = [], [], []
    for _ in range(rounds):
        theirs.append(seconds("-c", "import equinox, optax"))
        ours.append(seconds("-c", "import eqxgen; import eqxgen.ops, eqxgen.nn"))
        bare.append(seconds("-c", "import eqxgen"))
    ratio = lambda times: round(statistics.median(a / b for a, b in zip(times, theirs)), 3)
    return {
        "equinox_optax_s": round(statistics.median(theirs), 3),
        "import_eqxgen_ratio": ratio(bare),
        "import_all_of_eqxgen_ratio": ratio(ours),
    }


def compile_by_depth(rounds: int) -> dict[str, float]:
    """Lowering and compiling the digits train step at 24 layers against 6."""
    ratios, times = [], {6: [], 24: []}
    for _ in range(rounds):
        for depth in times:
            config = dataclasses.replace(
                maskgit.PRESETS["digits"], model=dataclasses.replace(maskgit.PRESETS["digits"].model, depth=depth)
            )
            update, inputs, state = abstract_update(
                config, maskgit.RECIPE.program(config, TokenFacts((8, 8, 1), 10, 64, 17)), make_mesh()
            )
            jax.clear_caches()
            begin = time.perf_counter()
            lower(update, inputs, state).compile()
            times[depth].append(time.perf_counter() - begin)
        ratios.append(times[24][-1] / times[6][-1])
    return {f"depth_{depth}_s": round(statistics.median(t), 2) for depth, t in times.items()} | {
        "depth_24_over_6_ratio": round(statistics.median(ratios), 3)
    }


def stack_by_depth(rounds: int) -> dict[str, float]:
    """Building a `Stack` and lowering its gradient step, with dropout and AdamW, at 24 layers against 6."""
    optimiser = optax.adamw(1e-3)

    def step(stack, state, x, key):
        grads = eqx.filter_grad(
            lambda stack: jnp.sum(jax.vmap(lambda x, key: stack(x, key=key))(x, jr.split(key, len(x))) ** 2)
        )(stack)
        updates, state = optimiser.update(grads, state, eqx.filter(stack, eqx.is_array))
        return eqx.apply_updates(stack, updates), state

    def elapsed(depth: int) -> float:
        jax.clear_caches()
        begin = time.perf_counter()
        stack = Stack(lambda key: Selformer(64, 4, dropout=0.1, key=key), depth, key=jr.key(0))
        state = optimiser.init(eqx.filter(stack, eqx.is_array))
        eqx.filter_jit(step).lower(stack, state, jnp.ones((2, 16, 64)), jr.key(1))
        return time.perf_counter() - begin

    elapsed(6)
    pairs = [(elapsed(6), elapsed(24)) for _ in range(rounds)]
    return {
        "stack_6_s": round(statistics.median(low for low, _ in pairs), 3),
        "stack_24_s": round(statistics.median(high for _, high in pairs), 3),
        "stack_24_over_6_ratio": round(statistics.median(high / low for low, high in pairs), 3),
    }


def main(part: str | None = None) -> None:
    if part == "stack":
        result = json.loads(OUT.read_text())
    else:
        result = imports(5) | {
            "help_s": round(statistics.median(seconds("-m", "train.maskgit", "--help") for _ in range(5)), 3)
        }
        result |= compile_by_depth(5)
    result |= stack_by_depth(3) | {"jax_version": jax.__version__, "python": sys.version.split()[0]}
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main(*sys.argv[1:])
