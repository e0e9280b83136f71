"""`--from`: weights of a run, a file or a published model; `--steps` that grow; the default folder of a run."""

import dataclasses
import functools
import hashlib
import json
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from eqxgen.configs import GPTConfig, ResNetConfig, VQGANConfig
from eqxgen.models import ResNet
from eqxgen.nn import WithState
from eqxgen.pretrained import to_pretrained
from tests import oracles
from tests.arrays import filled
from tests.full import full
from tests.oracles._drawn import published as drawn
from tests.train.small_runs import metrics, same, tiny, weights
from train import classify, gpt, maskgit, vqgan
from train._errors import UsageError, UserError
from train.config.base import parse, to_dict
from train.config.optim import OptimConfig
from train.engine.loop import Run
from train.engine.start import _last, matched, opened
from train.engine.step import Setup, sharded_state
from train.optim import schedule
from train.parallel import make_mesh
from train.params.paths import named_arrays
from train.run.folder import default_folder
from train.run.growth import growth
from train.run.weights import save_model
from train.tasks.classify import nets
from train.tasks.facts import ClassifierFacts, TextFacts, TokenFacts

MESH = make_mesh("", jax.devices()[:1])
TOKENS, IMAGES = TokenFacts((8, 8, 1), 10, 64, 17), ClassifierFacts((8, 8, 1), 10, 17)
CONSTANT = OptimConfig(learning_rate=3e-3, warmup=1, decay="constant")


def short(folder, **changes):
    return tiny(folder, **{"evals": ("none",), "steps": 3, "optim": CONSTANT} | changes)


@pytest.fixture(scope="module")
def parent(tmp_path_factory):
    """A run of three steps, with its best checkpoint."""
    folder = tmp_path_factory.mktemp("start") / "parent"
    assert maskgit.main(short(folder, keep_best="loss")) == 0
    return folder


def started(recipe, config, facts, released=lambda model, state: model):
    """The start of a config and the state that a run begins with."""
    program = recipe.program(config, facts)
    task = types.SimpleNamespace(program=program, released=released, facts=facts)
    found = matched(opened(config, recipe.name), config, recipe.name, task)
    setup = Setup.of(config, program, MESH, on_cpu=True)
    return found, sharded_state(setup, jax.random.key(7), found.load(MESH))


@pytest.mark.parametrize("which", ["averaged", "best", "last"])
def test_a_run_starts_from_the_weights_of_another_run_that_are_asked_for(which, parent):
    found, state = started(maskgit.RECIPE, short("new", start_from=str(parent), from_weights=which), TOKENS)
    arrays = named_arrays(state.model)
    if which == "last":
        expected = {name.removeprefix("model."): part.read(...) for name, part in _last(parent).arrays.items()}
        assert not same(arrays, weights(parent))
    else:
        expected = load_file(parent / {"averaged": "model.safetensors", "best": "best.safetensors"}[which])
    assert same(arrays, expected)
    assert same(named_arrays(state.ema[0]), expected)
    assert found.record | {"read": 0} == {
        "path": str(parent),
        "weights": which,
        "sha256": found.record["sha256"],
        "read": 0,
        "left": 0,
        "unused": 0,
    }
    assert f"{len(arrays)} arrays read; left at their initialisation: none; of the file not used: none" in found.line


def test_a_run_that_starts_from_weights_says_so_keeps_their_hash_and_does_not_need_them_again(parent, tmp_path, capsys):
    source = tmp_path / "start.safetensors"
    source.write_bytes((parent / "model.safetensors").read_bytes())
    config = short(tmp_path / "run", steps=1, start_from=str(source))
    assert maskgit.main(config) == 0
    assert f"--from {source}: " in capsys.readouterr().out
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert record["from"]["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert record["config"]["start_from"] == str(source)
    moved = weights(tmp_path / "run")["norm.scale"] - load_file(source)["norm.scale"]
    assert 0 < np.abs(moved).max() < 0.01
    source.unlink()
    longer = dataclasses.replace(config, steps=2)
    assert maskgit.main(longer) == 0
    assert "arrays read" not in capsys.readouterr().out
    with pytest.raises(UserError, match=r"--start-from was .*start\.safetensors and is None"):
        maskgit.main(dataclasses.replace(longer, start_from=None))


@full
def test_a_tokenizer_of_a_run_takes_its_place_beside_a_discriminator_and_its_codes_are_not_placed_anew(tmp_path):
    sizes = VQGANConfig(width=8, multipliers=(1, 2), blocks=1, latent_dim=4, codes=16)
    config = dataclasses.replace(vqgan.PRESETS["digits"], model=sizes, adversarial=0.1)
    model = vqgan.RECIPE.model(config, IMAGES)(jax.random.key(3))
    path = tmp_path / "model.safetensors"
    record = {"recipe": "vqgan", "config": to_dict(config), "facts": IMAGES.to_record()}
    save_model(path, model, record)
    config = dataclasses.replace(config, start_from=str(path))
    released = lambda model, state: model["tokenizer"].settled(state)
    found, state = started(vqgan.RECIPE, config, IMAGES, released)
    assert same(named_arrays(state.model["tokenizer"]), named_arrays(model))
    assert f"left at their initialisation: {len(found.left)} (model.discriminator." in found.line
    assert all(path.startswith("model.discriminator.") for path in found.left)
    change = vqgan.program(config, IMAGES).changes["start"]
    run = types.SimpleNamespace(weights=found)
    assert change.due(0)
    assert not Run.due(run, change, 0)
    assert Run.due(types.SimpleNamespace(weights=None), change, 0)
    # Moving codes are model state, which a released tokenizer has not: they are placed on the data as ever.
    moving = dataclasses.replace(config, model=dataclasses.replace(sizes, codebook="ema"))
    found, _ = started(vqgan.RECIPE, moving, IMAGES, released)
    assert found.record["unused"] == 1
    assert any(path.startswith("state") for path in found.left)
    assert Run.due(types.SimpleNamespace(weights=found), vqgan.program(moving, IMAGES).changes["start"], 0)


def test_model_state_is_read_with_the_model(tmp_path):
    config = classify.Config(model=ResNetConfig(width=8, multipliers=(1,), blocks=1))
    model = classify.model(config, IMAGES)(jax.random.key(3))
    model = jax.tree.map(lambda x: x + 1 if isinstance(x, jax.Array) else x, model)
    record = {"recipe": "classify", "config": to_dict(config), "facts": IMAGES.to_record()}
    save_model(tmp_path / "m.safetensors", model, record)
    config = dataclasses.replace(config, start_from=str(tmp_path / "m.safetensors"))
    released = functools.partial(nets.released, config)
    found, state = started(classify.RECIPE, config, IMAGES, released)
    assert same(named_arrays(released(state.model, state.state)), named_arrays(model))
    assert not found.left
    assert same(named_arrays(state.averaged_state[0]), named_arrays(state.state))


@pytest.mark.parametrize("normalise", ["none", "imagenet"])
def test_a_published_resnet_is_read_with_and_without_its_normalisation_of_pixels(tmp_path, normalise):
    sizes, facts = ResNetConfig(width=8, multipliers=(1,), depths=(1,), stem=8), ClassifierFacts((8, 8, 3), 10)
    config = classify.Config(backbone="resnet", model=sizes, normalise=normalise, start_from=str(tmp_path))
    make = lambda key: ResNet(3, 10, sizes, key=key)
    net = filled(make)
    to_pretrained(WithState(net, net.init_state()), tmp_path, "resnet")
    found, state = started(classify.RECIPE, config, facts, functools.partial(nets.released, config))
    assert same(named_arrays(state.model), named_arrays(net))
    assert not found.left
    assert "of the file not used: none" in found.line


SMALL = GPTConfig(dim=16, depth=2, heads=2, context=24)


def published(folder, kind=np.float32):
    arrays = oracles.load("gpt2")["weights"]
    save_file({name: array.astype(kind) for name, array in arrays.items()}, folder / "model.safetensors")
    sizes = {"vocab_size": 37, "n_positions": 24, "n_embd": 16, "n_layer": 2, "n_head": 2}
    (folder / "config.json").write_text(json.dumps({"model_type": "gpt2", **sizes}))
    return str(folder)


def test_a_published_folder_is_read_into_float32_parameters(tmp_path):
    path = published(tmp_path, ml_dtypes.bfloat16)
    config = dataclasses.replace(gpt.PRESETS["nano-cpu"], model=SMALL, start_from=path)
    found, state = started(gpt.RECIPE, config, TextFacts(37, 24))
    table = oracles.load("gpt2")["weights"]["transformer.wte.weight"]
    assert state.model.embedding.weight.dtype == jnp.float32
    np.testing.assert_array_equal(state.model.embedding.weight, table.astype(ml_dtypes.bfloat16).astype(np.float32))
    assert "16 arrays read (bfloat16 as float32)" in found.line
    # A model without biases leaves those of the file out, and says so.
    config = dataclasses.replace(config, model=dataclasses.replace(SMALL, bias=False))
    found, _ = started(gpt.RECIPE, config, TextFacts(37, 24))
    assert "of the file not used: 7 (stack.blocks.attention.qkv.bias, " in found.line


LLAMA = dataclasses.replace(
    GPTConfig.llama(dim=16, depth=2, heads=4, kv_heads=2, context=48),
    hidden_dim=20,
    rope_base=500_000.0,
    rope_factor=8.0,
    rope_original=16,
    epsilon=1e-6,
    dropout=0.1,
)


def llama(folder):
    kept = oracles.load("llama")["3.1/files"]
    save_file(drawn(kept["shapes"]), folder / "model.safetensors")
    (folder / "config.json").write_text(str(kept["config"]))
    return str(folder)


def test_a_llama_folder_fills_a_model_of_its_parts_and_numbers_alone(tmp_path):
    base = dataclasses.replace(gpt.PRESETS["llama"], start_from=llama(tmp_path))

    def start(**changes):
        config = dataclasses.replace(base, model=dataclasses.replace(LLAMA, **changes))
        program, facts = gpt.RECIPE.program(config, TextFacts(31, 48)), TextFacts(31, 48)
        task = types.SimpleNamespace(program=program, released=lambda model, state: model, facts=facts)
        return matched(opened(config, "gpt"), config, "gpt", task)

    assert not start().left
    for changes, message in (
        (
            {"rope_base": 10_000.0},
            r"rope\.base must be 500000\.0, as the published model's: got 10000\.0; give train\.gpt",
        ),
        ({"rope_factor": 2.0}, r"rope\.scaling\.factor must be 8"),
        ({"bias": True}, r"must have the arrays of the run's model: \d+ \(model\.stack"),
        ({"kv_heads": 4}, r"array model\.stack\.blocks\.attention\.qkv\.weight must be"),
        ({"tied": True}, r"none are not there, and 1 \(head\.weight\) are not of it; give"),
        ({"dim": 32}, r"must be float32\[31, 32\]: got float32\[31, 16\]; give train\.gpt the sizes of that model"),
    ):
        with pytest.raises(UsageError, match=message):
            start(**changes)


def test_data_of_another_vocabulary_are_named(tmp_path):
    config = dataclasses.replace(gpt.PRESETS["nano-cpu"], model=SMALL)
    facts = TextFacts(37, 24, "ab")
    record = {"recipe": "gpt", "config": to_dict(config), "facts": facts.to_record()}
    save_model(tmp_path / "m.safetensors", gpt.model(config, facts)(jax.random.key(0)), record)
    config = dataclasses.replace(config, start_from=str(tmp_path / "m.safetensors"))
    found, _ = started(gpt.RECIPE, config, TextFacts(37, 24, "cd"))
    assert found.line.endswith("; its data had another vocabulary")


@full
def test_a_run_is_extended_bit_for_bit_where_the_schedule_is_constant(parent, tmp_path, capsys):
    whole, longer = tmp_path / "whole", tmp_path / "longer"
    assert maskgit.main(short(whole, steps=6)) == 0
    assert maskgit.main(short(longer)) == 0
    assert maskgit.main(short(longer, steps=6)) == 0
    assert "to 6 steps, of 3 before; from step 3: learning rate 0.003, as before" in capsys.readouterr().out
    assert same(weights(whole), weights(longer))
    assert metrics(whole)[-1] == metrics(longer)[-1]
    record = json.loads((longer / "config.json").read_text())
    assert record["config"]["steps"] == 6
    assert record["growths"] == [{"step": 3, "from": 3, "to": 6, "rates": {"model": [pytest.approx(0.003)] * 2}}]
    assert json.loads((longer / "summary.json").read_text())["steps"] == 6
    assert maskgit.main(short(longer, steps=6)) == 0
    assert "is complete: 6 steps" in capsys.readouterr().out
    with pytest.raises(UserError, match="--steps was 6 and is 3"):
        maskgit.main(short(longer))


GROWTHS = [
    # decay, warm-up, steps before and after, step, refused
    ("constant", 10, 100, 200, 100, False),
    ("inverse_sqrt", 10, 100, 200, 100, False),
    ("wsd", 10, 100, 200, 81, False),
    ("wsd", 10, 100, 200, 82, True),
    ("cosine", 10, 100, 200, 11, False),
    ("cosine", 10, 100, 200, 12, True),
    ("one_cycle", 10, 100, 200, 12, True),
    ("linear", 10, 100, 200, 100, True),
    ("exponential", 10, 100, 200, 50, True),
    ("constant", 150, 100, 200, 0, False),
    ("constant", 150, 100, 200, 1, True),
]


@pytest.mark.parametrize(("decay", "warmup", "before", "after", "step", "refused"), GROWTHS)
def test_steps_grow_where_no_step_made_so_far_has_another_rate(decay, warmup, before, after, step, refused):
    optim = OptimConfig(decay=decay, warmup=warmup, learning_rate=2.0, final=0.1)
    made = np.arange(step)  # the steps made so far
    rates = [np.broadcast_to(schedule(optim, steps)(made), step) for steps in (before, after)]
    assert np.array_equal(*rates) != refused
    config = maskgit.Config(steps=after, optim=optim)
    if refused:
        with pytest.raises(UsageError, match=f"--steps may grow from {before} to {after} only with --extend: at step"):
            growth(config, {"model": optim}, before, step)
    record = growth(dataclasses.replace(config, extend=True), {"model": optim}, before, step)
    assert record["rates"]["model"] == [float(schedule(optim, steps)(step)) for steps in (before, after)]
    assert (record["step"], record["from"], record["to"]) == (step, before, after)


def test_extend_says_how_the_rate_changes(tmp_path, capsys):
    cosine = OptimConfig(learning_rate=3e-3, warmup=1, final=0.1)
    assert maskgit.main(short(tmp_path / "run", optim=cosine)) == 0
    config = short(tmp_path / "run", optim=cosine, steps=6)
    before = (tmp_path / "run" / "config.json").read_bytes()
    with pytest.raises(UsageError, match="only with --extend: at step 3 the run is within the cosine schedule of 3"):
        maskgit.main(config)
    assert (tmp_path / "run" / "config.json").read_bytes() == before
    assert (tmp_path / "run" / "summary.json").exists()
    assert maskgit.main(dataclasses.replace(config, extend=True)) == 0
    said = capsys.readouterr().out
    assert "learning rate 0.0003 before and 0.002067 now, as the cosine schedule is stretched" in said
    assert [line["step"] for line in metrics(tmp_path / "run")][-1] == 6


def test_the_default_folder_has_the_datas_name_where_they_are_not_the_presets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def folder(*flags):
        config = parse("maskgit", maskgit.Config, maskgit.PRESETS, "", flags)
        return str(default_folder("maskgit", config, maskgit.PRESETS[config.preset]))

    assert folder() == "runs/maskgit-digits"
    assert folder("--preset=mnist", "--data.name=fashion_mnist") == "runs/maskgit-mnist-fashion_mnist"
    assert folder("--data.name=./my flowers/") == "runs/maskgit-digits-my-flowers"
    assert folder("--data.name=../sets/cats.npz") == "runs/maskgit-digits-cats"
    # A run of an older version is found where it was made.
    Path("runs/maskgit-digits").mkdir(parents=True)
    record = {"recipe": "maskgit", "config": {"data": {"name": "./cats.npz"}}}
    Path("runs/maskgit-digits/config.json").write_text(json.dumps(record))
    assert folder("--data.name=./cats.npz") == "runs/maskgit-digits"
    assert folder("--data.name=./dogs.npz") == "runs/maskgit-digits-dogs"
