"""An update split over virtual devices is the update of one; valid meshes; placement of each array."""

import re

import equinox as eqx
import jax
import pytest
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from bench.reliability import device_parity
from bench.reliability.device_parity import AMPLIFIED, table
from eqxgen.configs import GPTConfig
from tests.devices import printed
from tests.full import FULL, full
from tests.train.small_runs import TINY
from train import gpt, maskgit, rnn
from train._errors import UsageError
from train.engine.axes import check_axes
from train.engine.step import Setup, abstract_state, make_update
from train.parallel import AXES, check_batch, check_heads, make_mesh, parse_mesh, processes, rules
from train.tasks.facts import TextFacts, TokenFacts

FACTS = TokenFacts((3, 3, 1), classes=3, tokens=9, codes=7)
CASES = device_parity.FULL if FULL else device_parity.SHORT
ROWS = [(program, *case) for program, cases in CASES.items() for case in cases]


@pytest.fixture(scope="module")
def rows():
    found = table("float64", 0, FULL)["gradients"]
    return {(row["program"], row["mesh"], row["accumulate"], row["examples"]): row for row in found}


@pytest.mark.parametrize("case", ROWS, ids=str)
def test_devices_and_micro_batches_give_the_gradient_of_one_device(rows, case):
    row = rows[case]
    assert row["gradient"] <= 1e-14 * AMPLIFIED.get(row["program"], 1)
    assert row["metrics"] <= 1e-12
    assert row["alike"]


# Micro-batches of a tokenizer have a forward pass more, for the terms of the whole batch; buffers of experts depend on
# how tokens are split; stages without work compute too.
COUNTED = [
    row
    for row in ROWS
    if not (
        (row[0] == "vqgan" and row[2] > 1)
        or row[0] == "unlimited"
        or (row[0] == "experts" and "context" in row[1])
        or "pipeline" in row[1]
    )
]


@pytest.mark.parametrize("case", COUNTED, ids=str)
def test_the_model_has_as_many_operations_on_every_mesh(rows, case):
    alone = next(row for row in rows.values() if row["program"] == case[0])
    assert rows[case]["operations"] == pytest.approx(alone["operations"], rel=1e-3)


def test_fully_sharded_devices_hold_their_share_of_parameters_and_optimiser(rows):
    # Small arrays stay whole; of a model of this size they are a few hundredths.
    for mesh, parts in {"data=2,fsdp=2,model=2": 4, **({"fsdp=8": 8} if FULL else {})}.items():
        assert rows["maskgit", mesh, 2, 13]["held"] <= 1 / parts + 0.1


@pytest.mark.parametrize(
    ("text", "count", "sizes"),
    [
        ("", 8, (8, 1, 1, 1, 1, 1)),
        ("fsdp=8", 8, (1, 8, 1, 1, 1, 1)),
        ("data=2,fsdp=2,model=2", 8, (2, 2, 1, 1, 1, 2)),
        ("model=2", 8, (4, 1, 1, 1, 1, 2)),
        (" model = 2 , fsdp = 2 ", 4, (1, 2, 1, 1, 1, 2)),
        ("context=4", 8, (2, 1, 1, 1, 4, 1)),
        ("expert=2,context=2", 8, (2, 1, 2, 1, 2, 1)),
        ("pipeline=4", 8, (2, 1, 1, 4, 1, 1)),
        ("data=1", 1, (1, 1, 1, 1, 1, 1)),
    ],
)
def test_a_mesh_is_read_and_data_takes_what_is_left(text, count, sizes):
    assert parse_mesh(text, count) == sizes


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data=4", "--mesh must have as many places as there are devices, 8: got data=4, which has 4"),
        ("fsdp=3", "--mesh must have as many places as there are devices, 8: got fsdp=3, which has 3"),
        ("date=8", "--mesh must name axes among data, fsdp, expert, pipeline, context, model: got 'date'"),
        ("data=two", "--mesh data must be a whole number of at least 1: got 'two'"),
        ("data=0", "--mesh data must be a whole number of at least 1: got '0'"),
        ("fsdp=-8", "--mesh fsdp must be a whole number of at least 1: got '-8'"),
        ("data=2,data=4", "--mesh must name an axis once: got data twice"),
        ("8", "--mesh must name axes among data, fsdp, expert, pipeline, context, model: got '8'"),
        ("context=2,model=2", "--mesh context goes without model: got context=2,model=2; give fsdp in place of model"),
        ("expert=2,model=2", "--mesh expert goes without model: got expert=2,model=2; give fsdp in place of model"),
        ("pipeline=2,model=2", "--mesh pipeline goes without model: got pipeline=2,model=2; give fsdp in place"),
    ],
)
def test_a_mesh_that_cannot_be_is_a_usage_error(text, message):
    with pytest.raises(UsageError, match=message.replace("(", r"\(")):
        parse_mesh(text, 8)


def places(**shape: int) -> AbstractMesh:
    """A mesh of more devices than there are here."""
    sizes = dict.fromkeys(AXES, 1) | shape
    return AbstractMesh(tuple(sizes.values()), AXES, axis_types=(AxisType.Auto,) * len(AXES))


@pytest.mark.parametrize(
    ("path", "shape", "mesh", "spec"),
    [
        ("model.stack.blocks.mlp.up.weight", (24, 3072, 768), places(fsdp=8, model=2), (None, "model", "fsdp")),
        ("model.stack.blocks.mlp.down.weight", (24, 768, 3072), places(fsdp=8, model=2), (None, "fsdp", "model")),
        ("opt_state.1.mu.stack.blocks.attention.qkv.weight", (24, 2304, 768), places(model=4), (None, "model", None)),
        ("ema.stack.blocks.attention.out.weight", (24, 768, 768), places(fsdp=4, model=2), (None, "fsdp", "model")),
        ("model.stack.blocks.mlp.up.weight", (8, 3072, 770), places(fsdp=8), (None, "fsdp", None)),
        ("model.stack.blocks.mlp_norm.scale", (24, 768), places(fsdp=8), (None, "fsdp")),
        ("model.encoder.blocks.0.conv.weight", (64, 3, 3, 63), places(fsdp=8), ("fsdp", None, None, None)),
        ("model.embedding.weight", (2026, 768), places(fsdp=8), (None, "fsdp")),
        ("model.head.bias", (768,), places(fsdp=8), (None,)),
        ("model.stack.blocks.mlp.experts.up.weight", (2, 8, 64, 32), places(expert=4), (None, "expert", None, None)),
        (
            "opt_state.model.mu.stack.blocks.mlp.experts.down.weight",
            (2, 8, 32, 64),
            places(fsdp=2, expert=4),
            (None, "expert", None, "fsdp"),
        ),
        ("model.stack.blocks.mlp.experts.up.bias", (2, 8, 64), places(expert=4), (None, "expert", None)),
        ("model.stack.blocks.mlp.router.weight", (2, 8, 32), places(expert=4), (None, None, None)),
        ("model.stack.blocks.mlp.up.weight", (24, 3072, 768), places(fsdp=2, pipeline=4), ("pipeline", "fsdp", None)),
        ("ema.stack.blocks.mlp_norm.scale", (24, 8), places(fsdp=2, pipeline=4), ("pipeline", None)),
        ("frozen.stack.blocks.mlp_norm.scale", (6, 8), places(pipeline=4), (None, None)),
        ("model.encoder.blocks.0.conv.weight", (64, 3, 3, 63), places(pipeline=8), (None, None, None, None)),
        ("model.odd", (1031, 1033), places(fsdp=8), (None, None)),
        ("step", (), places(fsdp=8, model=2), ()),
    ],
)
def test_one_rule_places_a_parameter_its_average_and_its_moments(path, shape, mesh, spec):
    assert rules.spec_of(path, shape, mesh) == PartitionSpec(*spec)


def test_more_parts_than_heads_are_a_usage_error_before_anything_is_made():
    program = maskgit.RECIPE.program(maskgit.Config(), FACTS)
    mesh = make_mesh("", jax.devices()[:1])
    state = abstract_state(Setup.of(maskgit.Config(), program, mesh, on_cpu=True))
    with pytest.raises(
        UsageError, match="--mesh model must divide the number of heads: got model=5, and an attention of 16 key heads"
    ):
        check_heads(state.model, places(model=5))


@pytest.mark.parametrize(
    ("recipe", "sizes", "mesh", "message"),
    [
        (
            gpt,
            {},
            {"context": 4},
            "--mesh context must divide half the tokens of an example: got context=4 and 12 tokens",
        ),
        (
            rnn,
            None,
            {"context": 2},
            "--mesh context needs a recipe whose examples can be split by tokens, such as gpt: got",
        ),
        (gpt, {}, {"expert": 2}, "--mesh expert needs a model with experts: got expert=2, and no layer of them"),
        (
            gpt,
            {"experts": 6},
            {"expert": 4},
            "--mesh expert must divide the number of experts: got expert=4, and a layer of 6",
        ),
        (
            gpt,
            {"depth": 6},
            {"pipeline": 4},
            "--mesh pipeline must divide the number of blocks: got pipeline=4, and a stack of 6",
        ),
        (
            gpt,
            {"depth": 4, "experts": 2},
            {"pipeline": 4},
            "--mesh pipeline needs blocks that follow one another: got a stack with experts; use fsdp",
        ),
        (rnn, None, {"pipeline": 2}, "--mesh pipeline needs a model with a stack of blocks: got pipeline=2, and none"),
    ],
    ids=("odd", "recurrent", "no experts", "six experts", "six blocks", "stages of experts", "no blocks"),
)
def test_an_axis_that_a_program_cannot_be_split_over_is_a_usage_error(recipe, sizes, mesh, message):
    config = (
        recipe.Config()
        if sizes is None
        else recipe.Config(model=GPTConfig(**{"dim": 8, "depth": 1, "heads": 1} | sizes))
    )
    program = recipe.RECIPE.program(config, TextFacts(7, 12))
    with pytest.raises(UsageError, match=re.escape(message)):
        check_axes(program, places(**mesh))


def test_an_even_split_of_tokens_and_experts_is_none():
    config = gpt.Config(model=GPTConfig(dim=8, depth=1, heads=1, experts=6))
    check_axes(gpt.RECIPE.program(config, TextFacts(7, 12)), places(expert=3, context=2))


@full
def test_runs_on_split_sequences_and_experts_are_those_of_copies_and_go_on_on_other_meshes():
    found = printed("tests.train.axes_runs", timeout=3000)
    for name, losses in found.items():
        alone = found["experts, data=8" if name.startswith("experts") else "data=8"]
        assert losses == pytest.approx(alone, rel=1e-5), name


def test_a_batch_must_be_shared_evenly():
    check_batch(16, places(data=2, fsdp=2, model=4), 4)
    with pytest.raises(
        UsageError, match=r"--batch-size must be a multiple of .*, 4, times --accumulate, 3: got 16; try 12"
    ):
        check_batch(16, places(data=2, fsdp=2, model=4), 3)


@pytest.mark.parametrize(
    ("variables", "several"),
    [
        ({}, False),
        ({"SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"SLURM_STEP_NUM_TASKS": "4"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "t0,t1"}, True),
    ],
)
def test_several_processes_are_recognised_by_their_surroundings(monkeypatch, variables, several):
    for name in (*processes.SURROUNDINGS, "TPU_WORKER_HOSTNAMES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert processes.surrounded() is several


def sums_of(jaxpr, inside=False):
    """For each sum over devices in a program, true inside a loop."""
    for equation in jaxpr.eqns:
        if equation.primitive.name.startswith(("psum", "reduce_scatter", "all_reduce")):
            yield inside
        for value in equation.params.values():
            for inner in value if isinstance(value, tuple | list) else [value]:
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from sums_of(inner, inside or equation.primitive.name in ("scan", "while"))


def test_gradients_are_summed_over_the_devices_after_the_last_micro_batch_and_not_before():
    program = maskgit.RECIPE.program(maskgit.Config(model=TINY, accumulate=4), FACTS)
    setup = Setup.of(maskgit.Config(accumulate=4), program, make_mesh("", jax.devices()[:1]), on_cpu=True)
    state = abstract_state(setup)
    batch = {name: jax.ShapeDtypeStruct((8, *shape), kind) for name, (shape, kind) in program.shapes.items()}
    batch |= {"index": jax.ShapeDtypeStruct((8,), "int32"), "weight": jax.ShapeDtypeStruct((8,), "float32")}
    key = jax.eval_shape(lambda: jax.random.key(0))
    jaxpr = eqx.filter_make_jaxpr(make_update(setup))((batch, key), state)[0]
    found = list(sums_of(jaxpr.jaxpr))
    assert found
    assert not any(found)
