"""Recipes: one route from config and facts to the model, and the fixed list of them."""

import dataclasses
import json
from pathlib import Path

import equinox as eqx
import jax
import jax.random as jr
import pytest

from eqxgen.configs import ImageARConfig, MaskedDecoding, Sampling
from eqxgen.nn import WithState
from tests.train.small_runs import TINY, tiny
from train import ar, maskgit, muse, parti, vqgan
from train._errors import UsageError, UserError
from train.config.base import TrainConfig, to_dict
from train.config.data import DataConfig
from train.engine.recipes import RECIPES, load, named, recipe_of
from train.run.folder import RunFolder, read_json
from train.run.weights import save_model
from train.tasks.facts import KNOWN, ImageFacts, LabelFacts, TextFacts, TextPairFacts, TokenFacts, image_facts
from train.tasks.masked import draw_masked
from train.tasks.sampling import Sample, given

FACTS = [
    (ImageFacts((8, 8, 1), 10, 17), {"image_shape": [8, 8, 1], "classes": 10, "levels": 17}),
    (TokenFacts((8, 8, 1), 10, 64, 17), {"image_shape": [8, 8, 1], "classes": 10, "tokens": 64, "codes": 17}),
    (TextPairFacts(65, 8, 9, "ab"), {"vocab": 65, "source": 8, "target": 9, "vocabulary": "ab"}),
    (TextFacts(65, 64, "ab"), {"vocab": 65, "context": 64, "vocabulary": "ab"}),
    (LabelFacts(65, 64, classes=1), {"vocab": 65, "context": 64, "vocabulary": None, "classes": 1}),
]


def test_the_list_has_every_recipe_of_the_folder():
    train = Path(maskgit.__file__).parent
    assert set(RECIPES) == {path.stem for path in train.glob("*.py") if "\nRECIPE = " in path.read_text()}
    for name in RECIPES:
        assert named(name).name == name
        assert issubclass(named(name).config, TrainConfig)
        assert issubclass(named(name).sample, Sample)


@pytest.mark.parametrize("name", RECIPES)
def test_the_model_of_config_and_facts_is_the_part_of_the_trained_one_that_is_released(name):
    recipe = named(name)
    config = next(iter(recipe.presets.values()))
    on_paper = {TextFacts: lambda: TextFacts(65, 64), TextPairFacts: lambda: TextPairFacts(65, 8, 8)}
    facts = on_paper.get(recipe.facts, lambda: recipe.on_paper(config))()
    trained = eqx.filter_eval_shape(recipe.program(config, facts).init, jr.key(0))
    part = {"vqgan": "tokenizer", "diffusion": "denoiser", "klvae": "autoencoder", "gan": "generator"}.get(name)
    released = trained[part] if part else trained
    made = eqx.filter_eval_shape(recipe.model(config, facts), jr.key(0))
    made = made.model if isinstance(made, WithState) else made
    assert jax.tree.structure(made) == jax.tree.structure(released)
    inference = eqx.nn.inference_mode  # that of matched images and texts is released in it
    assert jax.tree.leaves(inference(made)) == jax.tree.leaves(inference(released))


@pytest.mark.parametrize(("facts", "record"), FACTS, ids=lambda x: type(x).__name__)
def test_facts_survive_config_json(facts, record):
    assert facts.to_record() == record
    assert type(facts).from_record(json.loads(json.dumps(record))) == facts


def test_facts_that_an_older_run_lacks_have_their_defaults_and_others_are_an_error():
    assert ImageFacts.from_record({"image_shape": [8, 8, 1], "classes": 10}) == ImageFacts((8, 8, 1), 10)


WRONG = [
    ({"classes": 10, "tokens": 64}, "facts.image_shape must be given: got only classes, tokens"),
    ({"image_shape": [8, 8], "classes": 10, "tokens": 64, "codes": 17}, r"facts.image_shape must be three .*: got \[8, 8\]"),
    ({"image_shape": [8, 8, 1], "classes": "ten", "tokens": 64, "codes": 17}, "facts.classes must be a whole number: got 'ten'"),
    ({"image_shape": [8, 8, 1], "classes": True, "tokens": 64, "codes": 17}, "facts.classes must be a whole number: got True"),
]  # fmt: skip


@pytest.mark.parametrize(("record", "message"), WRONG)
def test_facts_that_cannot_be_are_an_error_that_names_the_file(record, message, tmp_path):
    record = {"recipe": "maskgit", "config": to_dict(tiny(tmp_path)), "facts": record}
    with pytest.raises(UserError, match=f"^run/config.json: {message}"):
        maskgit.RECIPE.open(tmp_path, record, "run/config.json")


@pytest.mark.parametrize("missing", ["config", "facts"])
def test_a_record_without_config_or_facts_is_an_error(missing, tmp_path):
    record = {"recipe": "maskgit", "config": to_dict(tiny(tmp_path)), "facts": FACTS[1][1]}
    with pytest.raises(UserError, match=f"run/config.json: {missing} must be an object: got None; was it edited"):
        maskgit.RECIPE.open(tmp_path, {**record, missing: None}, "run/config.json")


def test_facts_on_paper_are_those_of_the_data(tmp_path):
    for config in (maskgit.PRESETS["digits"], vqgan.PRESETS["digits"]):
        recipe = named("maskgit" if config is maskgit.PRESETS["digits"] else "vqgan")
        assert recipe.task(config, tmp_path).facts == recipe.on_paper(config)
    assert image_facts(maskgit.PRESETS["imagenet256"].data) == ImageFacts((256, 256, 3), 1000)
    pictures = {name for name, known in KNOWN.items() if known.shape and not known.masks}
    assert pictures == set(type(maskgit.PRESETS["digits"].data).KNOWN)


def test_on_paper_the_tokens_are_those_of_the_tokenizers_preset():
    assert maskgit.RECIPE.on_paper(maskgit.PRESETS["imagenet256"]) == TokenFacts((256, 256, 3), 1000, 256, 1024)


def test_a_folder_takes_facts_that_it_lacks_and_refuses_others(tmp_path):
    config = tiny(tmp_path / "run")
    facts = FACTS[0][0].to_record()
    old = {name: value for name, value in facts.items() if name != "levels"}
    for described in (old, facts):  # as the version before wrote it, and resumed by this one
        with RunFolder.open(config, "maskgit") as run:
            run.describe(described)
            assert run.record["facts"] == old
    for wrong in ({**facts, "classes": 9}, {"vocab": 65}):
        with (
            RunFolder.open(config, "maskgit") as run,
            pytest.raises(UserError, match=r"holds a run on other data .*give another folder"),
        ):
            run.describe(wrong)
    assert read_json(tmp_path / "run" / "config.json")["facts"] == old


def test_a_model_of_another_recipe_is_an_error_that_names_both(tmp_path):
    config, facts = tiny(tmp_path / "run"), TokenFacts((3, 3, 1), 3, 9, 7)
    record = {"recipe": "maskgit", "config": to_dict(config), "facts": facts.to_record()}
    model = maskgit.model(config, facts)(jr.key(0))
    save_model(tmp_path / "model.safetensors", model, record)
    again = load(tmp_path / "model.safetensors")
    assert eqx.tree_equal(again, model)
    assert again.stack.depth == TINY.depth
    with pytest.raises(UserError, match=r"is the model of a run of train\.maskgit: give one of train\.vqgan"):
        load(tmp_path / "model.safetensors", "vqgan")
    with pytest.raises(UserError, match=f"expected the config of a run of {', '.join(RECIPES)}: got recipe None"):
        recipe_of({}, "config.json")


def test_flags_of_sampling_are_the_options_each_as_the_run_says_by_default():
    form = maskgit.RECIPE.sample
    assert given(form(run="x"), MaskedDecoding) == {}
    assert given(form(run="x", steps=3, temperature=0.0), MaskedDecoding) == {"steps": 3, "temperature": 0.0}
    with pytest.raises(ValueError, match=r"^guidance must be at least 0 and finite: got -1\.0"):
        form(run="x", guidance=-1.0)
    text = named("gpt").sample(run="x", top_k=5)
    assert text.sampling == Sampling(temperature=0.8, top_k=5)


def test_more_guesses_than_tokens_is_an_error_before_the_model_is_drawn_from():
    facts = TokenFacts((3, 3, 1), 3, 9, 7)
    with pytest.raises(ValueError, match=r"decode\.steps must be from 1 to the number of tokens, 9: got 10"):
        draw_masked(maskgit.Config(decode=MaskedDecoding(steps=10)), facts)


def test_images_that_the_levels_do_not_divide_are_an_error_before_any_compile():
    with pytest.raises(UsageError, match=r"--model.multipliers: .* 4 must divide its sides: got images of \(6, 8, 1\)"):
        vqgan.RECIPE.program(vqgan.PRESETS["mnist"], ImageFacts((6, 8, 1), 10))


@pytest.mark.parametrize("recipe", [ar, maskgit, muse, parti])
def test_guidance_of_a_model_trained_with_every_condition_is_an_error_before_the_data(recipe, tmp_path):
    dropout = "text_dropout" if recipe in (muse, parti) else "label_dropout"
    config = recipe.Config(**{dropout: 0.0}, data=DataConfig(name="./none.npz"))
    guided = dataclasses.replace(config, decode=dataclasses.replace(config.decode, guidance=2.0))
    with pytest.raises(UsageError, match=rf"^--decode\.guidance must be 1 for a model trained with {dropout}=0: got 2"):
        recipe.RECIPE.task(guided, tmp_path)


@pytest.mark.parametrize(
    ("shape", "tokens", "grid"),
    [((8, 8, 1), 64, (8, 8)), ((4, 6, 3), 72, (4, 18)), ((32, 16, 3), 8, (4, 2)), ((28, 28, 1), 49, (7, 7)), ((32, 32, 3), 7, (1, 7))],
)  # fmt: skip
def test_tokens_form_the_grid_of_the_tokenizer(shape, tokens, grid):
    assert TokenFacts(shape, 10, tokens, 17).grid == grid


def test_random_orders_become_rarer_from_one_share_of_the_training_to_another():
    config = ar.Config(model=ImageARConfig(targets=True), shuffle_until=0.25, shuffle_end=0.75)
    assert [ar.numbers(config, r)["shuffled"] for r in (0.0, 0.24, 0.5, 0.75, 0.99)] == [1.0, 1.0, 0.5, 0.0, 0.0]
    assert ar.numbers(ar.Config(), 0.5) == {}
    for wrong, message in {
        (0.5, 0.25): "shuffle_until must be at least 0 and at most shuffle_end",
        (0.0, 0.5): r"shuffle_end must be 0 without model\.targets: got 0\.5",
    }.items():
        with pytest.raises(ValueError, match=message):
            ar.Config(shuffle_until=wrong[0], shuffle_end=wrong[1])
