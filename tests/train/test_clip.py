"""`train.clip`: its texts, a run on digits and one on pictures with captions, search, guidance and ranking by it, its
objectives on several devices, published weights, and options that cannot be.
"""

import csv
import dataclasses
import json

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from PIL import Image

from eqxgen.configs import ConvNetConfig, TextTowerConfig, ViTConfig
from eqxgen.losses.contrastive import LARGEST_SCALE, sigmoid_bias
from tests.devices import printed
from tests.full import full
from tests.pretrained.test_vision import CASES, published, write
from tests.train.small_runs import crashed_and_resumed, metrics, same, weights, words
from tests.train.test_sample import made
from tests.train.test_start import started
from train import clip, sample, search
from train._errors import UsageError, UserError
from train.config.data import DataConfig
from train.data import Dataset, load
from train.data.captioned.scenes import scenes
from train.data.images.dataset import Captions
from train.engine.recipes import load as load_model
from train.evaluators.matching import recalls
from train.tasks.clip.published import kept
from train.tasks.clip.towers import clamped, make_net, released
from train.tasks.clip.words import captions_of, encode_query, filled, grammar, open_texts, read_texts
from train.tasks.facts import PairFacts

SMALL = {
    "backbone": "conv",
    "dim": 8,
    "conv": ConvNetConfig(width=8, levels=1, features=8, dropout=0.0),
    "text": TextTowerConfig(dim=8, depth=1, heads=2, hidden_dim=16, context=8),
}
FACTS = PairFacts((8, 8, 1), 10, 17, vocab=10, text=8, end=9)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Two steps on digits."""
    folder = tmp_path_factory.mktemp("clip") / "run"
    values = {"steps": 2, "batch_size": 8, "log_every": 1, "sample_every": 0, "data": DataConfig(name="digits")}
    assert clip.main(dataclasses.replace(clip.PRESETS["mnist"], run_dir=str(folder), **values | SMALL)) == 0
    return folder


def test_a_run_has_zero_shot_accuracy_and_recall_in_its_summary_and_its_nearest_images_as_samples(run, tmp_path):
    summary = json.loads((run / "summary.json").read_text())
    assert 0 < summary["zero_shot_accuracy"] < 1
    # A text is right for a tenth of the images or so, so its recall is at least that of chance.
    assert {"text_recall_1", "text_recall_5", "image_recall_1", "image_recall_5"} <= summary.keys()
    assert summary["text_recall_1"] <= summary["text_recall_5"]
    assert (run / "samples" / "step-0000002.png").exists()
    assert 0 < metrics(run)[-1]["scale"] <= 100
    assert sample.main(words(run=run, text="a seven", n=3, out=tmp_path / "x.npz")) == 0
    with np.load(tmp_path / "x.npz") as arrays:
        assert arrays["images"].shape == (3, 8, 8, 1)


@full
def test_a_run_that_was_killed_goes_on_to_the_same_weights_and_scores(tmp_path, monkeypatch):
    values = {"steps": 4, "batch_size": 8, "log_every": 1, "sample_every": 0, "checkpoint_every": 2}
    config = lambda name: dataclasses.replace(
        clip.PRESETS["mnist"], run_dir=str(tmp_path / name), data=DataConfig(name="digits"), **values | SMALL
    )
    assert clip.main(config("whole")) == 0
    crashed_and_resumed(clip, config("cut"), 3, monkeypatch)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    first, second = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("whole", "cut"))
    for name in ("zero_shot_accuracy", "text_recall_1", "image_recall_1"):
        assert first[name] == second[name]


def rows_of(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_search_finds_the_picture_itself_and_writes_a_picture_and_a_table(run, tmp_path, monkeypatch):
    dataset = load(DataConfig(name="digits"))
    pixels = np.rint(dataset.test_images[7, ..., 0] * (255 / 16)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "query.png")
    out = tmp_path / "found.png"
    given = ["--text", "a seven", "the digit 4", "--image", str(tmp_path / "query.png")]
    assert search.main([*words(run=run, n=3, out=out), *given]) == 0
    rows = rows_of(tmp_path / "found.csv")
    assert [(row["query"], row["rank"]) for row in rows[::3]] == [
        ("a seven", "1"),
        ("the digit 4", "1"),
        ("query.png", "1"),
    ]
    assert rows[6]["image"] == "7"
    assert float(rows[6]["cosine"]) == pytest.approx(1, abs=1e-3)
    assert rows[6]["about"] == dataset.class_names[dataset.test_labels[7]]
    with Image.open(out) as picture:
        assert picture.width > 3 * 90
    # A folder of pictures, resized.
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name in ("a", "b"):
        Image.fromarray(np.full((16, 16, 3), ord(name), np.uint8)).save(folder / f"{name}.png")
    assert search.main([*words(run=run, data=folder, out=out), "--text", "a 7"]) == 0
    assert {row["image"] for row in rows_of(tmp_path / "found.csv")} == {"a.png", "b.png"}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], 'text or image must be given, as in --text "a seven"'),
        (["--text", "a", "--n", "0"], "n must be at least 1: got 0"),
        (["--text", "a", "--out", "x.npz"], "out must be the file of a picture: got 'x.npz'"),
        (["--text", "a", "--columns", "3"], "columns goes without search"),
        (["--text", " "], "--text must be one or more words: got ' '"),
        (["--text", "a b c d e f g h i j k l"], "--text must be at most the model's 7 tokens: got"),
        (["--text", "a", "--data", "foo"], "data.name must be one of digits, .*: got 'foo'"),
        (
            ["--text", "a", "--data", "captioned_digits"],
            "--data captioned_digits: must have images of 8 x 8 x 1, as the",
        ),
        (
            ["--text", "a", "--data", "./nothing"],
            "nothing: expected a picture or a folder of pictures .*: correct --data",
        ),
        (["--text", "a", "--n", "9999"], "--n must be at most the images that are searched, .*: got 9,999"),
        (["--image", "nothing.png"], "nothing.png: expected a picture or a folder .* nothing there: correct --image"),
    ],
)
def test_a_search_that_cannot_be_is_one_line(run, tmp_path, flags, message):
    with pytest.raises(UserError, match=message) as caught:
        search.main([*words(run=run), *(["--out", str(tmp_path / "x.png")] if "--out" not in flags else []), *flags])
    assert "\n" not in str(caught.value)


@full
def test_a_denoiser_is_guided_and_a_model_of_tokens_is_ranked_by_a_run(run, tmp_path, capsys):
    denoiser, tokens = made("diffusion", tmp_path / "diffusion"), made("ar", tmp_path / "ar")
    given = ["--text", "a seven", "the digit 4", f"--matcher={run}"]
    images = {}
    for match in (0, 5):
        out = tmp_path / f"{match}.npz"
        assert sample.main([*words(run=denoiser, n=3, steps=2, match=match, out=out), *given]) == 0
        with np.load(out) as arrays:
            images[match] = arrays["images"].astype(int)
            assert arrays["labels"].tolist() == [0, 1, 0]
    assert np.abs(images[0] - images[5]).max() > 0
    out = tmp_path / "best.npz"
    assert sample.main([*words(run=tokens, label=7, n=2, rerank=2, matcher=run, out=out)]) == 0
    with np.load(out) as arrays:
        assert arrays["images"].shape == (2, 8, 8, 1)
    for flags, message in {
        ("--text=a", f"--matcher={tokens}"): r"--matcher .*: is a run of train\.ar: give one of train\.clip",
        ("--text=a", f"--matcher={run}", "--guidance=2"): "--guidance must be 1 without --label",
        ("--text=a", f"--matcher={run}", "--label=10"): r"--label must be in \[0, 10\): got 10",
    }.items():
        with pytest.raises(UserError, match=message):
            sample.main([*words(run=denoiser, out=tmp_path / "y.npz"), *flags])


def test_a_run_on_pictures_with_captions_reads_their_texts(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, value in enumerate(np.random.default_rng(0).integers(0, 256, (10, 4, 4, 3), np.uint8)):
        Image.fromarray(value).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(("red dot", "blue")[number % 2])
    vit = ViTConfig(patch=2, dim=8, depth=1, heads=2, hidden_dim=8)
    config = clip.Config(data=DataConfig(name=str(folder), image_size=4), vit=vit, **SMALL | {"backbone": "vit"})
    facts = clip.RECIPE.task(dataclasses.replace(config, batch_size=4), tmp_path).facts
    assert (facts.vocab, facts.text, facts.end) == (len(set("red dot blue")) + 1, 8, facts.vocab - 1)
    short = dataclasses.replace(config, batch_size=4, text=dataclasses.replace(config.text, context=7))
    with pytest.raises(UserError, match=r"--text\.context must be more than the tokens of every caption of .*: got 7"):
        clip.RECIPE.task(short, tmp_path)
    with pytest.raises(UserError, match="digits: expected images with captions, got no captions"):
        clip.RECIPE.task(dataclasses.replace(config, data=DataConfig(name="digits")), tmp_path)


def test_texts_of_classes_are_templates_with_their_names():
    assert captions_of(("a {}", "the digit {}", "{}"), "8") == (
        *("an eight", "the digit eight", "eight", "an 8", "the digit 8", "8"),
    )
    assert captions_of(("a photo of a {}",), "Ankle_boot") == ("a photo of an ankle boot",)
    assert filled("a {} and a b", "one") == "a one and a b"
    config = dataclasses.replace(clip.PRESETS["mnist"], **SMALL)
    texts = read_texts(config, load(DataConfig(name="digits")))
    assert texts.rows.shape == (10, 10)
    assert {texts.texts[row] for row in texts.rows[7]} == set(captions_of(clip.DIGITS, "7"))
    assert set(texts.groups[texts.rows[7]]) == {7}
    assert (texts.ids == texts.vocabulary.size).any(axis=1).all()


def test_classes_and_captions_that_share_a_text_are_no_negatives_of_each_other():
    images, labels = np.zeros((8, 8, 8, 1), np.uint8), np.arange(8, dtype=np.int32) % 4
    names = ("Red fish", "Green fish", "cat", "Blue fish")
    data = Dataset("x", images, labels, images, labels, names, captions=Captions(names * 2, ("Cat", *names[1:]) * 2))
    sizes = SMALL | {"text": dataclasses.replace(SMALL["text"], context=24), "text_tokenizer": "chars"}
    config = dataclasses.replace(clip.PRESETS["mnist"], **sizes, templates=("a {}", "{}"))
    assert read_texts(config, data).groups.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    shared = dataclasses.replace(data, class_names=("Red_fish", "Green fish", "red fish", "a green fish"))
    assert read_texts(config, shared).groups.tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    texts = read_texts(dataclasses.replace(config, captions="data"), data)
    assert texts.groups[texts.rows[texts.train, 0]].tolist() == [0, 1, 2, 3] * 2


def test_the_grammar_has_a_caption_of_every_scene():
    assert len(grammar()) == len(scenes())
    assert "three red sevens in a row" in grammar()


def test_recall_counts_what_comes_first_and_a_tie_as_missed():
    queries, gallery = np.eye(3), np.array([[1.0, 0, 0], [0, 1, 0], [0, 1, 0.5], [0.9, 0, 0]])
    found = recalls("text", queries, gallery, np.array([0, 1, 1]), np.array([0, 2, 1, 3]))
    assert found == {"text_recall_1": 2 / 3, "text_recall_5": 1.0}  # of the second both have cosine 1
    bad = recalls("text", queries * np.nan, gallery, np.arange(3), np.arange(4))
    assert set(bad.values()) == {0.0}


@pytest.mark.parametrize("objective", ["infonce", "siglip"])
def test_the_first_temperature_and_bias_are_published_ones_and_the_scale_is_clamped(objective):
    config = clip.Config(objective=objective, batch_size=64, **SMALL)
    net = make_net(config, FACTS, jr.key(0))
    assert float(jnp.exp(net.logit_scale)) == pytest.approx(10 if objective == "siglip" else 1 / 0.07, rel=1e-5)
    assert (net.logit_bias is None) == (objective == "infonce")
    if net.logit_bias is not None:
        assert float(net.logit_bias) == pytest.approx(sigmoid_bias(64))
    high = clamped(_with_scale(net, 9.0))
    assert float(high.logit_scale) == pytest.approx(LARGEST_SCALE)
    assert float(clamped(_with_scale(net, 2.0)).logit_scale) == 2.0
    constrained = clip.program(config, FACTS).constrained(_with_scale(net, 9.0)).logit_scale
    assert float(constrained) == pytest.approx(9.0 if objective == "siglip" else LARGEST_SCALE)


def _with_scale(net, value):
    return eqx.tree_at(lambda net: net.logit_scale, net, jnp.asarray(value))


def test_losses_and_gradients_are_those_of_one_device_on_two_and_on_eight():
    for objective, found in printed("tests.train.clip_devices").items():
        assert found.pop("gradient") > 1e-2, objective
        assert found.keys() == {"data=1", "data=2", "data=8", "data=2,fsdp=4"}
        assert max(found.values()) < 1e-12, objective


@pytest.mark.parametrize("name", ["CLIP, largest id", "SigLIP"])
def test_a_published_folder_is_read(name, tmp_path):
    values = json.loads(str(CASES[name]["config"]))
    write(tmp_path, values, published(name))
    vision, text = values["vision_config"], values["text_config"]
    siglip = values["model_type"] == "siglip"
    sizes = lambda of: {
        "dim": of["hidden_size"],
        "depth": of["num_hidden_layers"],
        "heads": of["num_attention_heads"],
        "hidden_dim": of["intermediate_size"],
        "activation": "gelu_tanh" if siglip else "quick_gelu",
        "epsilon": of["layer_norm_eps"],
    }
    options = {"class_token": False, "pool": "attention"} if siglip else {"patch_bias": False, "embedding_norm": True}
    context = text["max_position_embeddings"]
    config = clip.Config(
        objective="siglip" if siglip else "infonce",
        start_from=str(tmp_path),
        dim=text.get("projection_size", values.get("projection_dim")),
        vit=ViTConfig(patch=vision["patch_size"], **sizes(vision), **options),
        text=TextTowerConfig(context=context, causal=not siglip, pool="last" if siglip else "largest", **sizes(text)),
    )
    side = vision["image_size"]
    facts = PairFacts((side, side, 3), 10, vocab=text["vocab_size"], text=context, end=text["vocab_size"] - 1)
    found, state = started(clip.RECIPE, config, facts, lambda net, state: released(config, net))
    assert not found.left
    assert "of the file not used: none" in found.line
    assert np.isfinite(float(state.model.logit_scale))


def test_texts_of_a_published_model_have_its_special_tokens_and_the_run_keeps_its_files(tmp_path):
    folder, kept_in = tmp_path / "published", tmp_path / "run"
    folder.mkdir(), kept_in.mkdir()
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "ca", "cat</w>", "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\nc a\nca t</w>\n")
    (folder / "config.json").write_text(json.dumps({"model_type": "clip", "text_config": {"vocab_size": 56}}))
    texts = open_texts(clip.Config(text_tokenizer=str(folder)), ("A cat",))
    assert encode_query(texts, "A  cat", 8).tolist() == [54, 26, 53, 55, 55, 55, 55, 55]
    texts.save(kept_in)
    assert kept(kept_in, texts.sha256).encode("cat").tolist() == [54, 53]
    (kept_in / "tokenizer" / "merges.txt").write_text("#version: 0.2\nc a\n")
    with pytest.raises(UserError, match="tokenizer: expected the tokenizer of the checkpoint, got another"):
        kept(kept_in, texts.sha256)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"accumulate": 2, "batch_size": 8},
            "accumulate must be 1, as micro-batches would have fewer negatives .*: got 2",
        ),
        ({"batch_size": 1}, "batch_size must be at least 2, as there are negatives: got 1"),
        ({"dim": 0}, "dim must be at least 1: got 0"),
        (
            {"objective": "siglip", "dim": 5},
            "dim must be vit.dim=768 with objective siglip, which does not project it: got 5",
        ),
        ({"captions": "classes", "templates": ("a photo",)}, "templates must have {} once each, .*: got 'a photo'"),
        ({"captions": "classes", "templates": ()}, "templates must be given with captions classes"),
        ({"text_tokenizer": " "}, "text_tokenizer must be chars, bytes, bpe-SIZE, or a path: got ' '"),
    ],
)
def test_an_option_that_cannot_be_is_one_line(changes, message):
    with pytest.raises(ValueError, match=message):
        clip.Config(**changes)


def test_images_that_do_not_suit_the_towers_are_one_line_before_any_compile():
    for changes, message in {
        "vit": "--vit.patch 16 must divide the sides of the images: got 8 x 8",
        "conv": "--normalise clip: must have images of 3 channels: got 1",
    }.items():
        config = clip.Config(backbone=changes, normalise="clip" if changes == "conv" else "none")
        with pytest.raises(UsageError, match=message):
            make_net(config, FACTS, jr.key(0))


def test_a_model_that_a_run_released_is_loaded(run):
    model = load_model(run / "model.safetensors", "clip")
    image = model.image_features(jnp.zeros((8, 8, 1)))
    text = model.text_features(jnp.full(8, 3))
    assert model.similarity(image[None], text[None]).shape == (1, 1)
