"""Run by test_engine_devices.py in processes of their own on 8 virtual devices; prints JSON.

parity   a classifier with batch norm, one of blocks of which a part is trained, and a VQGAN with a discriminator, its lazy penalty and a moving codebook, on several
         meshes against one device; a net of matrices by Shampoo and by Sophia, whose roots and curvature are shared out;
         EQXGEN_FULL=1 takes every mesh, and models of texts and images with two stages of blocks
memory   temporaries of a step of a net of levels, copied and with parameters in parts, and of blocks that are computed
         again; several updates in one call against single steps
"""

import dataclasses
import json
import math
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax

from bench.reliability.small import batch_of
from eqxgen.configs import GPTConfig, MuseConfig, PartiConfig, ResNetConfig, T5Config, ViTConfig, VQGANConfig
from eqxgen.nn import Convolution
from tests.full import FULL
from train import classify, gpt, muse, parti, t5, vqgan
from train.config.base import TrainConfig
from train.config.optim import EmaConfig, OptimConfig
from train.data.feed.feed import stacked
from train.engine.dryrun import lower
from train.engine.recipe import Program, Sums
from train.engine.scan import Span, make_scan, several
from train.engine.start import Stored, matched, opened
from train.engine.step import Inputs, Setup, abstract_state, make_step, make_update, sharded_state
from train.engine.tuning import division, tuned
from train.optim.ema import averages
from train.parallel import make_mesh, place, replicated, split, split_several
from train.params.paths import named_arrays
from train.precision import cast
from train.run.weights import save_model
from train.tasks.facts import CaptionFacts, ClassifierFacts, TextFacts, TextPairFacts

ROWS, COUNT, STEPS = 16, 13, 3
STAGES = {"pipeline=2": 2, "pipeline=2,fsdp=4": 8, "pipeline=4,data=2": 8}
MESHES = {"data=1": 1, "data=2": 2, "data=8": 8, "fsdp=8": 8, "data=2,fsdp=4": 8} | STAGES
SHORT = {"classify": ["fsdp=8"], "shampoo": ["fsdp=8"]}
COPIED = ("classify", "tuned", "vqgan", "shampoo", "sophia")
STAGED = ("gpt", "parti", "muse", "t5")
LONG = {name: list(MESHES)[1 : -len(STAGES)] for name in COPIED} | {name: list(STAGES) for name in STAGED}
COMPARED = LONG if FULL else SHORT
FACTS = ClassifierFacts((8, 8, 1), 10, 17)
OPTIM = OptimConfig(learning_rate=1e-2, warmup=0, decay="constant")


def programs():
    sizes = ResNetConfig(width=16, multipliers=(1, 2), blocks=1)
    config = classify.Config(model=sizes, precision="float64", optim=OPTIM, batch_size=ROWS)
    yield "classify", config, classify.program(config, FACTS)
    # Roots in every update but the first: 12 matrices of p = 4, and 8 of the array with one side too long, of p = 2.
    shampoo = dataclasses.replace(
        OPTIM, name="shampoo", block=16, every=1, graft_steps=1, nesterov=True, ridge=1e-4, max_side=60
    )
    yield "shampoo", *of_two_layers(shampoo)
    if not FULL:
        return
    yield "sophia", *of_two_layers(dataclasses.replace(OPTIM, name="sophia", every=1, beta2=0.5))
    blocks = ViTConfig(patch=4, dim=32, depth=2, heads=2, hidden_dim=64, dropout=0.0)
    config = dataclasses.replace(config, backbone="vit", vit=blocks, freeze=("**.mlp**",), start_from="a run")
    whole = classify.program(config, FACTS)
    parts = division(config, whole, ())
    rest = eqx.filter_jit(lambda key: parts.rest(parts.make(key)))(jr.key(0))
    yield "tuned", config, tuned(whole, parts, lambda: rest)
    moving = VQGANConfig(width=8, multipliers=(1, 2), blocks=1, latent_dim=4, codes=16, codebook="ema")
    players = {
        "adversarial": 0.1,
        "r1_every": 2,
        "discriminator": vqgan.DiscriminatorConfig(**dataclasses.asdict(OPTIM)),
    }
    config = vqgan.Config(model=moving, precision="float64", optim=OPTIM, batch_size=ROWS, **players)
    yield "vqgan", config, vqgan.program(config, FACTS)
    yield from of_stages()


def of_stages():
    """A decoder, and models of an encoder and a decoder, of four blocks each."""
    plain: dict[str, Any] = {"precision": "float64", "optim": OPTIM, "batch_size": ROWS}
    halves: dict[str, Any] = {"dim": 16, "depth": 4, "heads": 2, "head_dim": 8, "hidden_dim": 32, "dropout": 0.0}
    pictures = CaptionFacts((8, 8, 1), 10, 6, 16, vocab=12, text=5)
    gpts, texts = GPTConfig(dim=16, depth=4, heads=2, context=8), TextPairFacts(16, 5, 6)
    yield "gpt", *of_recipe(gpt, gpt.Config(model=gpts, **plain), TextFacts(7, 8))
    yield "parti", *of_recipe(parti, parti.Config(model=PartiConfig(context=5, **halves), **plain), pictures)
    yield "muse", *of_recipe(muse, muse.Config(model=MuseConfig(context=5, **halves), **plain), pictures)
    yield "t5", *of_recipe(t5, t5.Config(model=T5Config(context=8, **halves), **plain), texts)


def of_recipe(recipe: Any, config: TrainConfig, facts: Any) -> tuple[TrainConfig, Program]:
    return config, recipe.RECIPE.program(config, facts)


def of_two_layers(optim: OptimConfig) -> tuple[TrainConfig, Program]:
    config = TrainConfig(precision="float64", optim=optim, batch_size=ROWS, accumulate=2)
    return config, Program.of(two_layers, squares, {"x": ((48,), "float32")})


def two_layers(key: Any) -> dict[str, jax.Array]:
    first, second = jr.split(key)
    return {"down": jr.normal(first, (48, 32)) / 8, "up": jr.normal(second, (32, 64)) / 8, "bias": jnp.zeros(64)}


def squares(model: Any, batch: Any, keys: Any, context: Any) -> Sums:
    """Squared error of two layers against a part of their input."""
    made = jnp.tanh(batch["x"] @ model["down"]) @ model["up"] + model["bias"][None]
    target = jnp.concatenate([batch["x"], batch["x"][:, :16]], axis=1)
    errors = jnp.mean((made - target) ** 2, axis=1)
    return Sums(batch["weight"] @ errors, jnp.sum(batch["weight"]), {})


def trained(config: Any, core: Program, text: str) -> dict[str, np.ndarray]:
    """Arrays of the state after some steps, by path."""
    mesh = make_mesh(text, jax.devices()[: MESHES[text]])
    wide = dataclasses.replace(core, init_state=lambda model: cast(core.init_state(model), jnp.float64))
    setup, frozen = Setup.of(config, wide, mesh, on_cpu=True), place(core.frozen(), mesh)
    state, step = sharded_state(setup, jr.key(0)), make_step(setup)
    for number in range(STEPS):
        batch = batch_of(core, ROWS, number, COUNT, "float64")
        state, _ = step(Inputs(jax.device_put(batch, split(mesh)), jr.key(1), frozen), state)
        jax.block_until_ready(state)
    parts = (state.model, state.ema, state.state, state.averaged_state)
    return {name: np.asarray(x, np.float64) for name, x in named_arrays(parts).items()}


def parity() -> dict[str, dict[str, float]]:
    """The largest difference from one device over all arrays, each relative to its largest entry."""
    jax.config.update("jax_enable_x64", True)
    found: dict[str, dict[str, float]] = {}
    for name, config, core in programs():
        model = eqx.filter_jit(core.init)(jr.key(0))
        core = dataclasses.replace(
            core, init=lambda key, model=model: model
        )  # drawn once; test_parallel.py draws on each
        alone = trained(config, core, "data=1")
        apart = lambda x, y: float(np.max(np.abs(x - y)) / max(np.max(np.abs(y)), 1e-3))
        for text in COMPARED[name]:
            other = trained(config, core, text)
            found.setdefault(name, {})[text] = max(apart(other[path], alone[path]) for path in alone)
        state = [path for path in alone if path.startswith("2.")]
        if state:
            found[name]["state"] = float(np.max(np.abs(alone[state[0]])))
    return found


class Levels(eqx.Module):
    """Down and up with skips, as a U-Net: a list of levels, no `Stack`."""

    downs: tuple[Convolution, ...]
    ups: tuple[Convolution, ...]

    def __init__(self, width: int, depth: int, *, key: Any):
        keys = jr.split(key, 2 * depth)
        self.downs = tuple(Convolution(width, width, key=key) for key in keys[:depth])
        self.ups = tuple(Convolution(2 * width, width, key=key) for key in keys[depth:])

    def __call__(self, x):
        skips = []
        for down in self.downs:
            x = jax.nn.silu(down(x))
            skips.append(x)
        for up in self.ups:
            x = jax.nn.silu(up(jnp.concatenate([x, skips.pop()], -1)))
        return x


def read_in_parts(core: Program, setup: Setup) -> float:
    """The largest share of a parameter that one reading of `--from` takes; infinite where the values are others."""
    model, shares = core.init(jr.key(3)), [0.0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        save_model(path, model, {})
        weights = opened(TrainConfig(start_from=str(path)), "maskgit")

        def counted(stored: Stored) -> Stored:
            def read(index: Any) -> np.ndarray:
                part = stored.read(index)
                shares.append(part.size / math.prod(stored.shape) if part.ndim > 1 else 0.0)
                return part

            return stored._replace(read=read)

        weights = weights._replace(arrays={name: counted(stored) for name, stored in weights.arrays.items()})
        task = types.SimpleNamespace(program=core, released=lambda model, state: model, facts=FACTS)
        start = matched(weights, TrainConfig(start_from=str(path)), "maskgit", task)
        state = sharded_state(setup, jr.key(0), start.load(setup.mesh))
    equal = [np.array_equal(x, y) for x, y in zip(jax.tree.leaves(state.model), jax.tree.leaves(model))]
    return max(shares) if all(equal) else math.inf


def of_levels(width: int, depth: int) -> Program:
    """Images of random numbers, to be given back."""

    def loss(model, batch, keys, context):
        errors = jnp.mean((jax.vmap(model)(batch["x"]) - batch["x"]) ** 2, axis=(1, 2, 3))
        return Sums(batch["weight"] @ errors, jnp.sum(batch["weight"]), {})

    return Program.of(lambda key: Levels(width, depth, key=key), loss, {"x": ((4, 4, width), "float32")})


def scanned(text: str) -> float:
    """The largest difference of three updates in one call from three steps; infinite where an array is placed otherwise."""
    core, mesh = of_levels(8, 1), make_mesh(text)
    setup = Setup(core, {"model": optax.adam(0.1)}, averages(EmaConfig(), 8), mesh)
    batches = [batch_of(core, 8, number, 8, "float32") for number in range(STEPS)]
    state, step = sharded_state(setup, jr.key(0)), make_step(setup)
    for batch in batches:
        state, _ = step(Inputs(jax.device_put(batch, split(mesh)), jr.key(1)), state)
    stacks = jax.device_put(stacked(batches), split_several(mesh))
    other = sharded_state(setup, jr.key(0))
    other, _ = make_scan(setup)(several(core, Span(0, STEPS), Inputs(stacks, jr.key(1)), {}), other)
    pairs = list(zip(named_arrays(state).values(), named_arrays(other).values()))
    placed = all(x.sharding.is_equivalent_to(y.sharding, x.ndim) for x, y in pairs)
    return max(float(np.max(np.abs(np.asarray(x) - np.asarray(y)))) for x, y in pairs) if placed else math.inf


def compiled_step(core: Program, text: str) -> tuple[Any, Any]:
    """The compiled update of 8 examples, and the shapes of its state."""
    mesh = make_mesh(text)
    setup = Setup(core, {"model": optax.sgd(0.1)}, averages(EmaConfig(), 8), mesh)
    shapes = {**core.shapes, "index": ((), "int32"), "weight": ((), "float32")}
    batch = {
        name: jax.ShapeDtypeStruct((8, *shape), dtype, sharding=split(mesh)) for name, (shape, dtype) in shapes.items()
    }
    key = jax.ShapeDtypeStruct((), jr.key(0).dtype, sharding=replicated(mesh))
    state = abstract_state(setup)
    return lower(make_update(setup), Inputs(batch, key), state).compile(), state


def memory() -> dict[str, Any]:
    """Bytes of all parameters and of the temporaries on each device; see `read_in_parts` and `scanned`."""
    core = of_levels(64, 6)
    found: dict[str, Any] = {}
    for text in ("data=8", "fsdp=8"):
        compiled, state = compiled_step(core, text)
        found[text] = compiled.memory_analysis().temp_size_in_bytes
        found["parameters"] = 4 * sum(x.size for x in named_arrays(state.model).values())
        found[f"gathers of {text}"] = compiled.as_text().count(" all-gather(")
    for remat in (False, True):
        sizes = GPTConfig(dim=64, depth=8, heads=2, context=128, remat=remat)
        compiled, _ = compiled_step(gpt.RECIPE.program(gpt.Config(model=sizes), TextFacts(64, 128)), "fsdp=8")
        found[f"remat {remat}"] = compiled.memory_analysis().temp_size_in_bytes
    setup = Setup(core, {"model": optax.sgd(0.1)}, averages(EmaConfig(), 8), make_mesh("fsdp=8"))
    found["read"] = read_in_parts(core, setup)
    found["scanned"] = {text: scanned(text) for text in ("data=8", "fsdp=8")[1 - FULL :]}
    return found


if __name__ == "__main__":
    json.dump({"parity": parity, "memory": memory}[sys.argv[1]](), sys.stdout)
