"""`train.sample`: its checks through every recipe, and samples as files of each kind."""

import csv
import dataclasses
import json
import tracemalloc

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from PIL import Image

from eqxgen._files import part_of
from eqxgen.configs import (
    AutoencoderConfig,
    BERTConfig,
    ConvNetConfig,
    DCGANConfig,
    DiTConfig,
    GPTConfig,
    ImageARConfig,
    MAGEConfig,
    MaskedDecoding,
    MaskGITConfig,
    MuseConfig,
    PartiConfig,
    ResNetConfig,
    RNNConfig,
    SegmentationConfig,
    T5Config,
    TextTowerConfig,
    VAEConfig,
    VQGANConfig,
    WaveGRUConfig,
)
from eqxgen.decoding.stopping import cut
from tests.full import rows
from tests.train.small_runs import words
from train import sample
from train._errors import UsageError, UserError
from train._files import remove_parts
from train.config import flags
from train.config.base import to_dict
from train.data.audio.files import write_sound
from train.data.images.grid import FORMATS
from train.data.text.bpe import train_byte_pairs
from train.data.text.pair_vocabulary import OwnPairs, Words
from train.data.text.vocabulary import Characters
from train.data.text.word_pieces import SPECIAL, WordPieces
from train.engine.recipes import RECIPES, named
from train.evaluators.stream import Stream
from train.parallel import make_mesh
from train.run.weights import save_model
from train.tasks.draw import drawn, labelled
from train.tasks.facts import (
    AudioFacts,
    CaptionFacts,
    ClassifierFacts,
    ImageFacts,
    LabelFacts,
    PairFacts,
    TextFacts,
    TextPairFacts,
    TokenFacts,
)
from train.tasks.masked import draw_masked
from train.tasks.sampling import ImageSample
from train.tasks.texts import TextSample, _Text, with_ends
from train.tasks.writers import write_images

CAPTIONED, PAIRS = ("clip", "muse", "parti"), ("t5",)
IMAGES, TEXTS = ("ar", "classify", "diffusion", "gan", "klvae", "mage", "maskgit", "vae", "vqgan"), ("gpt", "rnn")
BERTS = ("bert", "glue")
CHARACTERS = Characters("\n abcdefgh")
PIECES = WordPieces((*SPECIAL, "a", "b", "##b", "c"))
BERT = BERTConfig(dim=8, depth=1, heads=2, context=8)
BOTH = OwnPairs(CHARACTERS, Words(("K", "T")))
MAGE = MAGEConfig(8, 1, 2, 8, decoder_dim=8, decoder_depth=1, decoder_heads=2, decoder_hidden_dim=8)
MODELS = {
    "ar": (ImageARConfig(dim=8, depth=1, heads=2), TokenFacts((8, 8, 1), 10, 64, 17)),
    "classify": (ResNetConfig(width=8, multipliers=(1,), blocks=1), ClassifierFacts((8, 8, 1), 10, 17)),
    "clip": (
        {
            "conv": ConvNetConfig(width=8, levels=1, features=8),
            "text": TextTowerConfig(dim=8, depth=1, heads=2, hidden_dim=8, context=8),
        },
        PairFacts(
            (8, 8, 1), 10, 17, vocab=CHARACTERS.size + 1, text=8, end=CHARACTERS.size, vocabulary=CHARACTERS.sha256
        ),
    ),
    "diffusion": ({"dit": DiTConfig(dim=8, depth=1, heads=2, learn_variance=False)}, ImageFacts((8, 8, 1), 10, 17)),
    "klvae": (AutoencoderConfig(widths=(4, 8), blocks=1, groups=2), ImageFacts((8, 8, 1), 10, 17)),
    "gan": ({"dcgan": DCGANConfig(latent_dim=4, width=8, base=2)}, ImageFacts((8, 8, 1), 10, 17)),
    "mage": (MAGE, TokenFacts((8, 8, 1), 10, 64, 17)),
    "maskgit": (MaskGITConfig(dim=8, depth=1, heads=2), TokenFacts((8, 8, 1), 10, 64, 17)),
    "muse": (
        MuseConfig(dim=8, depth=1, heads=2, head_dim=4, hidden_dim=8, context=8),
        CaptionFacts((8, 8, 1), 10, 64, 17, vocab=CHARACTERS.size, text=8, vocabulary=CHARACTERS.sha256),
    ),
    "parti": (
        PartiConfig(dim=8, depth=1, heads=2, head_dim=4, hidden_dim=8, context=8),
        CaptionFacts((8, 8, 1), 10, 64, 17, vocab=CHARACTERS.size, text=8, vocabulary=CHARACTERS.sha256),
    ),
    "segment": (SegmentationConfig(width=4, multipliers=(1, 2)), ImageFacts((8, 8, 1), 2)),
    "wavegru": (WaveGRUConfig(8, 4, 4, dilations=(1,)), AudioFacts(8000, 100, 40)),
    "vae": (VAEConfig(hidden=(8,), latent_dim=3), ImageFacts((8, 8, 1), 10, 17)),
    "vqgan": (VQGANConfig(width=8, latent_dim=4, codes=16, multipliers=(1, 2)), ImageFacts((8, 8, 1), 10, 17)),
    "gpt": (GPTConfig(dim=8, depth=1, heads=2, context=32), TextFacts(CHARACTERS.size, 32, CHARACTERS.sha256)),
    "t5": (
        T5Config(dim=8, depth=1, heads=2, head_dim=4, hidden_dim=8, context=8),
        TextPairFacts(BOTH.size, 8, 8, BOTH.sha256),
    ),
    "rnn": (RNNConfig(dim=8, depth=1), TextFacts(CHARACTERS.size, 32, CHARACTERS.sha256)),
    "bert": (BERT, TextFacts(PIECES.size, 8, PIECES.sha256)),
    "glue": (BERT, LabelFacts(PIECES.size, 8, PIECES.sha256, classes=3)),
}


def made(recipe, folder, change=lambda model: model):
    """A run of untrained weights, on digits or on a vocabulary of ten characters."""
    found, (sizes, facts) = named(recipe), MODELS[recipe]
    preset = next(iter(found.presets.values()))
    others = (*TEXTS, *BERTS, *PAIRS, "segment", "wavegru")
    data = {} if recipe in others else {"data": dataclasses.replace(preset.data, name="digits")}
    data |= {"tokenizer": "pixels"} if recipe in ("muse", "parti") else {}
    sizes = sizes if isinstance(sizes, dict) else {"model": sizes}
    config = dataclasses.replace(preset, **sizes, **data)
    record = {"recipe": recipe, "config": to_dict(config), "facts": facts.to_record()}
    folder.mkdir(parents=True)
    save_model(folder / "model.safetensors", change(found.model(config, facts)(jr.key(0))), record)
    (folder / "config.json").write_text(json.dumps(record), encoding="utf-8")
    if recipe in (*TEXTS, *CAPTIONED):
        CHARACTERS.save(folder / "vocabulary.json")
    if recipe in BERTS:
        PIECES.save(folder / "vocabulary.json")
        (folder / "classes.json").write_text('["x", "y", "z"]')
    if recipe == "segment":
        (folder / "classes.json").write_text('[{"value": [0], "name": "x"}, {"value": [255], "name": "y"}]')
    if recipe in PAIRS:
        BOTH.save(folder / "vocabulary.json")
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return {recipe: made(recipe, folder / recipe) for recipe in RECIPES}


def call(run, *flags, **options):
    return sample.main([*words(run=run, **options), *flags])


EVERY = {"--seed -1": "seed must be in", "--seed x": "--seed must be a whole number", "--run": "no value"}
PICTURES = {
    "--n 0": "n must be at least 1: got 0",
    "--n 2.5": "--n must be a whole number",
    "--columns 0": "columns must be at least 1",
    "--out x.gif": r"out must be a file of \.png, .* or FOLDER/ for single files: got 'x.gif'",
    "--out x": "got 'x'",
    "--out .npz": "got '.npz'",
    "--prompt a": "--prompt: no such flag",
    "--stop a": "--stop: no such flag",
}
IMAGE = PICTURES | {
    "--per-class 0": "per_class must be at least 1: got 0",
    "--per-class 2 --n 3": "n goes without per_class",
    "--label -1": "label must be at least 0: got -1",
    "--labels 1 -2": "labels must be at least 0: got -2",
    "--labels 1 1": r"labels must be each given once: got \(1, 1\)",
    "--labels 1 --label 2": "label goes without labels",
}
WORDLESS = {"--text a": "--text: no such flag"}
DRAWN = {
    "--guidance nan": "guidance must be at least 0 and finite: got nan",
    "--guidance inf": "guidance must be at least 0 and finite: got inf",
    "--guidance -1": "guidance must be at least 0 and finite: got -1.0",
    "--schedule foo": "schedule must be one of cosine, .*: got 'foo'",
    "--schedule power-1": "exponent of schedule power must be a positive number",
    "--temperature -1": "temperature must be at least 0 and finite: got -1.0",
    "--temperature nan": "temperature must be at least 0 and finite: got nan",
    "--temperature inf": "temperature must be at least 0 and finite: got inf",
    "--choice-temperature inf": "choice_temperature must be at least 0 and finite: got inf",
    "--choice-temperature -1": "choice_temperature must be at least 0 and finite: got -1.0",
    "--steps 0": "steps must be at least 1: got 0",
}
DENOISED = {
    "--guidance nan": "guidance must be at least 0 and finite: got nan",
    "--guidance -1": "guidance must be at least 0 and finite: got -1.0",
    "--steps 0": "steps must be at least 1: got 0",
    "--sampler foo": "sampler must be one of euler, .*: got 'foo'",
    "--eta 2": r"eta must be in \[0, 1\]: got 2.0",
    "--interval 5,1": "interval must be LOW,HIGH with 0 <= LOW < HIGH, as in 0.3,5: got '5,1'",
    "--sigma-min 3 --sigma-max 2": "sigma_min must be below sigma_max: got 3.0 and 2.0",
    "--guidance-rule pag": "guidance_rule must be one of cfg, apg, cfg_zero_star: got 'pag'",
    "--guidance-rule apg --rescale 0.5": "rescale must be 0 with guidance_rule apg: got 0.5",
    "--guidance-rule cfg_zero_star --channels 3": "channels must be 0 with guidance_rule cfg_zero_star: got 3",
    "--apg-momentum 1": r"apg_momentum must be in \(-1, 1\): got 1",
    "--apg-parallel -0.1": r"apg_parallel must be in \[0, 1\]: got -0.1",
    "--zero-steps -1": "zero_steps must be at least 0",
    "--rtol 0": r"rtol must be in \[1e-6, 1\], as float32 ends at 1e-7: got 0",
    "--atol nan": r"atol must be in \[1e-6, 1\], .*: got nan",
    "--text a": "text goes with matcher, a run of train.clip",
    "--matcher m": "text goes with matcher, a run of train.clip",
    "--match 2": "match goes with text, which was not given",
    "--text a --matcher m --match -1": "match must be at least 0 and finite: got -1",
    "--text a --matcher m --edit b.png": "text goes without edit: give one of them",
    "--text a --matcher m --labels 1 2": "labels and per_class go without text: give --label for a class of all images",
    "--inpaint a.png": "inpaint must have --mask, white where it is painted",
    "--mask a.png": "mask must have --inpaint",
    "--mask a.png --edit b.png": "mask must have --inpaint",
    "--inpaint a.png --mask m.png --edit b.png": "inpaint goes without edit: give one of them",
    "--inpaint a.png --mask m.png --repeats 0": "repeats must be at least 1: got 0",
    "--inpaint a.png --mask m.png --jump 0": "jump must be at least 1: got 0",
    "--strength 0.5": "strength must have --edit",
    "--edit a.png --strength 0": r"strength must be in \(0, 1\]: got 0; 0 would be the picture itself",
    "--edit a.png --strength 1.5": r"strength must be in \(0, 1\]: got 1.5",
    "--edit a.png --strength nan": r"strength must be in \(0, 1\]: got nan",
    "--upscale a.png --edit b.png": "edit goes without upscale: give one of them",
    "--upscale a.png --strength 0.5": "strength must have --edit",
    "--iterations 3 --edit a.png": "iterations must have --invert or --interpolate",
    "--invert a.png --iterations 0": "iterations must be at least 1: got 0",
    "--invert a.png --n 3": "n goes without invert, which makes one image: got 3",
    "--invert a.png --out x/": "out must be a picture or .npz with --invert: got 'x/'",
    "--invert a.png --labels 1 2": "labels and per_class go without invert, of one class: give --label",
    "--interpolate a.png": "interpolate must be two pictures: got 1",
    "--interpolate a.png b.png c.png": "interpolate must be two pictures: got 3",
    "--interpolate a.png b.png --n 1": "n must be at least 2 with --interpolate: got 1",
    "--probes 1": "probes must have --likelihood",
    "--likelihood --probes -1": "probes must be at least 0: got -1",
    "--likelihood --out x.npz": "out goes without likelihood, which writes no file: got 'x.npz'",
}
OF_LATENTS = {
    "--truncation 3": r"truncation must be in \[0, 2\]: got 3.0",
    "--truncation nan": r"truncation must be in \[0, 2\]: got nan",
    "--seeds x": "seeds must be whole numbers of up to 9 digits or ranges, as in 0-63 or 1,5,9: got 'x'",
    "--seeds 5-2": "seeds must be ranges that rise, as in 0-63: got '5-2'",
    "--seeds 0-999999": "seeds must be at most 100000 of them: got '0-999999'",
    "--seeds 1 --n 3": "n goes without seeds",
    "--seeds 1 --interpolate": "seeds must be at least 2 of them: got '1'",
    "--interpolate": "interpolate and mix go with --seeds",
    "--mix -1": "mix must be at least 0: got -1",
    "--seeds 0-3 --mix 2 --interpolate": "mix goes without interpolate",
    "--steps 9": "steps must have --project: got 9",
    "--project a.png --steps 0": "steps must be at least 1: got 0",
    "--project a.png --seeds 0-3": "seeds goes without project",
    "--project a.png --n 3": "n goes without project",
    "--project a.png --labels 1 2": "labels goes without project",
    "--project a.png --truncation 0.5": "truncation must be 1 with --project: got 0.5",
    "--project a.png --out x/": "out must be a picture or .npz with --project: got 'x/'",
}
TEXT = {
    **{flags: message for flags, message in DRAWN.items() if flags.startswith("--temperature")},
    "--top-k 0": "top_k must be at least 1: got 0",
    "--top-k 1.5": "--top-k must be a whole number",
    "--top-p 0": r"top_p must be in \(0, 1\]: got 0.0",
    "--top-p nan": r"top_p must be in \(0, 1\]: got nan",
    "--min-p 2": r"min_p must be in \(0, 1\]: got 2.0",
    "--min-p nan": r"min_p must be in \(0, 1\]: got nan",
    "--repetition-penalty nan": "repetition_penalty must be positive and finite: got nan",
    "--repetition-penalty 0": "repetition_penalty must be positive and finite: got 0.0",
    "--chars 0": "chars must be at least 1: got 0",
    "--n 0": "n must be at least 1: got 0",
    "--beams 0": "beams must be at least 1: got 0",
    "--beams 2 --temperature 1": "beams goes without temperature",
    "--stop=": "stop must be one or more characters: got ''",
    "--stop-id -1": "stop_id must be at least 0: got -1",
    "--stop-id x": "--stop-id must be a whole number",
    "--out x.png": "out must be a .txt or .jsonl file: got 'x.png'",
    "--out x": "out must be a .txt or .jsonl file: got 'x'",
    "--guidance 1": "--guidance: no such flag",
    "--label 1": "--label: no such flag",
}
PAIR = {
    **{
        f"{words_} --text a": message
        for words_, message in TEXT.items()
        if words_.startswith(("--t", "--min", "--rep"))
    },
    "--n 1": "text must be given, as in --text",
    "--text=": "text must be one or more characters: got ''",
    "--text a --n 0": "n must be at least 1: got 0",
    "--text a --length 0": "length must be at least 1: got 0",
    "--text a --beams 0": "beams must be at least 1: got 0",
    "--text a --beams 2 --temperature 1": "beams goes without temperature",
    "--text a --length-penalty 1": "length_penalty goes with beams, which was not given",
    "--text a --beams 2 --length-penalty -1": "length_penalty must be at least 0 and finite: got -1",
    "--text a --beams 2 --length-penalty nan": "length_penalty must be at least 0 and finite: got nan",
    "--text a --out x.txt": r"out must be a .tsv or .jsonl file: got 'x.txt'",
    "--text a --chars 3": "--chars: no such flag",
}
LATENT = {
    "--interpolate --columns 1": "columns must be at least 2 with --interpolate: got 1",
    "--interpolate --columns 3 --n 50": "n must be a multiple of columns, 3, with --interpolate: got 50",
}
PRIOR = {
    "--reconstruct --interpolate": "reconstruct goes without interpolate",
    "--label 3": "label goes with --reconstruct or --interpolate: draws from the prior have no classes",
    "--labels 3 4": "labels goes with --reconstruct or --interpolate",
    "--per-class 3": "per_class goes with --reconstruct or --interpolate",
}
AUTOREGRESSIVE = {
    "--guidance nan": "guidance must be at least 0 and finite: got nan",
    "--temperature -1": "temperature must be at least 0 and finite: got -1.0",
    "--top-k 0": "top_k must be at least 1: got 0",
    "--candidates 0": "candidates must be at least 1: got 0",
    "--steps 3": "--steps: no such flag",
}
TEXTUAL = {"--n 1": "text must be given, as in --text", "--label 3": "--label: no such flag"}
RANKED = {
    "--rerank 1 --matcher m": "rerank must be at least 2: got 1",
    "--rerank 4": "rerank goes with matcher, a run of train.clip",
    "--matcher m": "rerank goes with matcher, a run of train.clip",
    "--rerank 4 --matcher m --candidates 2": "candidates goes without rerank: give one of them",
}
CAPTION = (
    PICTURES
    | TEXTUAL
    | {
        **{f"{words_} --text a": message for words_, message in (AUTOREGRESSIVE | RANKED).items()},
    }
)
MASKS = {
    "--out x.png": "out must be FOLDER/: got 'x.png'",
    "--out ./": "out must be FOLDER/: got './'",
    "--tile 0": "tile must be at least 1: got 0",
    "--tile x": "--tile must be a whole number",
    "--overlap -1": "overlap must be at least 0: got -1",
    "--n 3": "--n: no such flag",
    "--label 1": "--label: no such flag",
}
SOUNDS = {
    "--out x.wav": "out must be FOLDER/: got 'x.wav'",
    "--temperature 0": "temperature must be positive and finite: got 0",
    "--mix": "mix goes with wavs, which was not given",
    "--resample": "resample goes with wavs, which was not given",
    "--n 0": "n must be at least 1: got 0",
    "--label 1": "--label: no such flag",
}
ANSWERS = {
    "": "text must be given, as in --text",
    "--text=": "text must be one or more words: got ''",
    "--text [MASK] --top 0": "top must be at least 1: got 0",
    "--text [MASK] --out x.txt": r"out must be a .jsonl file: got 'x.txt'",
    "--text [MASK] --n 3": "--n: no such flag",
}
ALONE = {"--guidance 1": "--guidance: no such flag", "--temperature 1": "--temperature: no such flag"}
WRONG = [
    (recipe, words_, message)
    for recipe, tables in {
        "classify": (EVERY, IMAGE, ALONE, WORDLESS),
        "clip": (EVERY, PICTURES, TEXTUAL),
        "diffusion": (EVERY, IMAGE, DENOISED),
        "klvae": (EVERY, IMAGE, LATENT, ALONE, WORDLESS),
        "vae": (EVERY, IMAGE, LATENT, PRIOR, ALONE, WORDLESS),
        "gan": (EVERY, IMAGE, OF_LATENTS, WORDLESS),
        "vqgan": (EVERY, IMAGE, ALONE, WORDLESS),
        "ar": (EVERY, IMAGE, AUTOREGRESSIVE, RANKED, WORDLESS),
        "mage": (EVERY, IMAGE, DRAWN, WORDLESS),
        "maskgit": (EVERY, IMAGE, DRAWN, WORDLESS),
        "muse": (EVERY, PICTURES | TEXTUAL, {f"{words_} --text a": message for words_, message in DRAWN.items()}),
        "parti": (EVERY, CAPTION),
        "segment": (EVERY, MASKS, ALONE),
        "wavegru": (EVERY, SOUNDS),
        "bert": (EVERY, ANSWERS, {"--text a": r"text must have a gap, written \[MASK\]: got 'a'"}),
        "glue": (EVERY, ANSWERS, {"--text a b --second c": "second must be a text for each of --text: got 1 for 2"}),
        "gpt": (EVERY, TEXT),
        "rnn": (EVERY, TEXT),
        "t5": (EVERY, PAIR),
    }.items()
    for table in tables
    for words_, message in table.items()
]


@pytest.mark.parametrize(("recipe", "words_", "message"), WRONG)
def test_a_wrong_option_is_one_line_of_every_recipe(recipe, words_, message):
    with pytest.raises(UsageError, match=message) as caught:
        flags.parse(
            named(recipe).sample, "sample", "", ["--run=x", *words_.split()] if "--run" not in words_ else ["--run"]
        )
    assert "\n" not in str(caught.value)
    assert caught.value.status == 2


def test_every_recipe_has_a_row_of_wrong_options():
    assert {recipe for recipe, _, _ in WRONG} == set(RECIPES)


KNOWN_LATER = [
    (
        "gan",
        ["--truncation=0.7"],
        "--truncation must have a model with a mean style vector, stylegan2: got one of dcgan",
    ),
    (
        "gan",
        ["--mix=2", "--seeds=0-3"],
        "--mix must have a model with a mean style vector, stylegan2: got one of dcgan",
    ),
    ("gan", ["--project=a.png"], "--label must be given with --project, as the model has classes"),
    ("gan", ["--project=none.png", "--label=3"], "--project none.png: expected a readable file, got No such file"),
    ("clip", ["--text=a", "--n=9999"], "--n must be at most the held-out images, .*: got 9,999"),
    ("glue", ["--text=a", "--top=9"], "--top must be at most the classes of the run, .*: got 9"),
    ("bert", ["--text=[MASK]", "--top=99"], "--top must be at most the words of the vocabulary, 9: got 99"),
    ("diffusion", ["--grid=trailing"], "--grid trailing must have a schedule of steps: got VE"),
    ("diffusion", ["--variance=learned"], "--variance learned must have a model with dit.learn_variance"),
    ("ar", ["--guidance-to=65"], "--guidance_to must be at most the number of tokens, 64: got 65"),
    ("mage", ["--steps=65"], "--steps must be from 1 to the number of tokens, 64: got 65"),
    ("parti", ["--guidance-to=65", "--text=a"], "--guidance_to must be at most the number of tokens, 64: got 65"),
    ("t5", ["--text=ax"], "--text: text must have characters of the vocabulary's 10 alone: got 'x'"),
    ("t5", ["--text=abcdefgh"], "--text must be at most the model's 8 tokens with the end: got 9; shorten it"),
    ("t5", ["--text=a", "--length=8"], "--length must be below the model's 8 tokens: got 8"),
    ("t5", ["--text=a", "--beams=15"], "--beams must be at most the vocabulary's 14: got 15"),
    ("parti", ["--text="], "--text must be one or more characters: got ''"),
    ("parti", ["--text=ax"], "--text: text must have characters of the vocabulary's 10 alone: got 'x' at character 1"),
    ("parti", ["--text=abcdefgh"], "--text must be at most the model's 7 tokens: got 8; shorten it"),
    ("muse", ["--steps=65", "--text=a"], "--steps must be from 1 to the number of tokens, 64: got 65"),
    ("muse", ["--low=x", "--text=a"], "--low x: goes with the run of a second stage: .* is a first stage"),
    ("maskgit", ["--steps=65"], "--steps must be from 1 to the number of tokens, 64: got 65"),
    *(
        (recipe, [*flags, *["--reconstruct"] * (recipe == "vae")], message)
        for recipe in IMAGES
        for flags, message in {
            ("--label=10",): r"--label must be in \[0, 10\): got 10",
            ("--labels", "3", "12"): r"--labels must be in \[0, 10\): got 12",
        }.items()
    ),
    ("vae", ["--reconstruct", "--n=7"], "x.png must have full rows, images in multiples of 6: got --n 7"),
    ("vae", ["--reconstruct", "--n=8", "--columns=3"], "must have full rows, images in multiples of 6: got --n 8"),
    (
        "vae",
        ["--reconstruct", "--n=9998"],
        "--n must be at most the held-out images and their reconstructions, .*: got 9,998",
    ),
    ("classify", ["--n=3"], "--n 3: a grid of a classifier has a row for each class: give --per-class"),
    ("classify", ["--columns=3"], "--columns 3: a grid of a classifier has a row for each class"),
    *((recipe, ["--stop-id=10"], r"--stop-id must be in \[0, vocab=10\): got values from 10") for recipe in TEXTS),
    *((recipe, ["--beams=11", "--chars=2"], "--beams must be at most the vocabulary's 10: got 11") for recipe in TEXTS),
]


@pytest.mark.parametrize(("recipe", "words_", "message"), KNOWN_LATER)
def test_an_option_that_the_run_does_not_allow_is_a_usage_error(recipe, words_, message, runs, tmp_path):
    out = {} if recipe in (*TEXTS, *PAIRS, *BERTS) else {"out": tmp_path / "x.png"}
    with pytest.raises(UserError, match=message):
        call(runs[recipe], *words_, **out)
    assert not list(tmp_path.iterdir())


def test_images_of_texts_are_a_row_for_each_and_their_numbers_are_the_labels(runs, tmp_path):
    words_ = ("--text", "ab", "c d")
    assert call(runs["parti"], *words_, n=3, out=tmp_path / "all.npz") == 0
    assert call(runs["parti"], "--text", "ab", n=3, guidance=1, out=tmp_path / "one.npz") == 0
    with np.load(tmp_path / "all.npz") as arrays, np.load(tmp_path / "one.npz") as one:
        assert arrays["labels"].tolist() == [0, 0, 0, 1, 1, 1]
        assert arrays["images"].shape == (6, 8, 8, 1)
        assert not np.array_equal(arrays["images"][:3], one["images"])


def table_of(folder):
    with (folder / "labels.csv").open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("recipe", rows(IMAGES, "ar", "klvae", "mage", "vae"))
def test_images_are_a_folder_and_an_npz_with_the_same_pixels_and_labels(recipe, runs, tmp_path, capsys):
    options: dict = {"n": 5, "seed": 4} | ({"steps": 1} if recipe in ("mage", "maskgit") else {})
    assert call(runs[recipe], out=f"{tmp_path}/single/", **options) == 0
    assert call(runs[recipe], out=tmp_path / "all.npz", **options) == 0
    assert "5 images in" in capsys.readouterr().out
    with np.load(tmp_path / "all.npz") as arrays:
        images, labels = arrays["images"], arrays["labels"]
    assert (images.shape, images.dtype, labels.dtype) == ((5, 8, 8, 1), np.uint8, np.int32)
    rows = table_of(tmp_path / "single")
    assert [int(row["label"]) for row in rows] == labels.tolist()
    assert [row["file"] for row in rows] == [f"00000{i}-class-{label}-seed-4.png" for i, label in enumerate(labels)]
    for row, image in zip(rows, images):
        with Image.open(tmp_path / "single" / row["file"]) as picture:
            np.testing.assert_array_equal(np.asarray(picture), image[..., 0])
    assert len(list((tmp_path / "single").iterdir())) == 6
    assert {path.name for path in tmp_path.iterdir()} == {"single", "all.npz"}


def test_a_run_goes_on_after_a_process_was_killed_while_it_wrote_samples_into_its_folder(tmp_path):
    part = part_of(tmp_path / "run" / "single")
    part.mkdir(parents=True)
    (part / "000000-class-3-seed-4.png").write_bytes(b"half")
    part_of(tmp_path / "run" / "all.npz").touch()
    remove_parts(tmp_path)
    assert [*(tmp_path / "run").iterdir()] == []


def test_labels_and_images_per_class_are_what_was_asked_for(runs, tmp_path):
    for recipe in ("maskgit", "vqgan"):
        options = {"steps": 1} if recipe == "maskgit" else {}
        out = tmp_path / f"{recipe}.npz"
        assert call(runs[recipe], "--labels", "7", "3", per_class=2, out=out, **options) == 0
        with np.load(out) as arrays:
            assert sorted(arrays["labels"].tolist()) == [3, 3, 7, 7]
    assert call(runs["maskgit"], label=2, n=3, steps=1, out=tmp_path / "one.npz") == 0
    with np.load(tmp_path / "one.npz") as arrays:
        assert arrays["labels"].tolist() == [2, 2, 2]


@pytest.mark.parametrize("suffix", [*FORMATS, ".JPG"])
def test_a_grid_has_the_format_of_its_suffix(suffix, tmp_path):
    asked = ImageSample(run="x", out=str(tmp_path / f"grid{suffix}"), columns=2)
    assert asked.save([np.zeros((3, 4, 4, 3), np.float32)], np.zeros(3, np.int32)) == 0
    with Image.open(asked.out) as picture:
        assert picture.format == FORMATS[suffix.lower()]


def test_what_is_there_is_not_lost_in_silence(tmp_path, capsys):
    asked = ImageSample(run="x", out=str(tmp_path / "a.png"))
    for _ in range(2):
        asked.save([np.zeros((1, 4, 4, 1), np.float32)], np.zeros(1, np.int32))
    assert [line.endswith("a.png, in place of the file before") for line in capsys.readouterr().out.splitlines()] == [
        False,
        True,
    ]
    folder = ImageSample(run="x", out=f"{tmp_path}/")
    with pytest.raises(UserError, match=r"--out .*/: must be a new or empty folder: it holds 1 files"):
        folder.check_out()
    (tmp_path / "new").mkdir()
    empty = ImageSample(run="x", out=f"{tmp_path}/new/")
    empty.check_out()
    assert empty.save([np.zeros((1, 4, 4, 1), np.float32)], np.zeros(1, np.int32)) == 0


@pytest.mark.parametrize("out", ["x.png", "x.npz", "x/"])
def test_images_of_nan_leave_no_file(out, tmp_path):
    asked = ImageSample(run="r", out=f"{tmp_path}/{out}")
    batches = [np.zeros((2, 4, 4, 1), np.float32), np.full((1, 4, 4, 1), np.nan, np.float32)]
    with pytest.raises(UserError, match="--run r: the model's images are not numbers: its weights are damaged"):
        asked.save(batches, np.zeros(3, np.int32))
    assert not list(tmp_path.iterdir())


DAMAGED = ("diffusion", "gpt", "maskgit", "clip", "gan", "classify", "vae")
"""Recipes whose damaged model is in the suite: one of each kind of samples."""


@pytest.mark.parametrize("recipe", rows(RECIPES, *(name for name in RECIPES if name not in DAMAGED)))
def test_a_model_of_nan_is_an_error_of_every_recipe(recipe, tmp_path):
    nan = lambda x: jnp.asarray(np.full(x.shape, np.nan, x.dtype)) if eqx.is_inexact_array(x) else x
    broken = lambda model: jax.tree.map(nan, model)
    run = made(recipe, tmp_path / recipe, broken)
    options = {"chars": 3} if recipe in TEXTS else {"n": 2, "out": tmp_path / "x.npz"}
    options |= {"text": "ab"} if recipe in CAPTIONED else {}
    Image.new("L", (8, 8)).save(tmp_path / "grey.png")
    write_sound(tmp_path / "tone.wav", [np.sin(np.arange(300, dtype=np.float32))], 8000)
    others = {
        "segment": {"images": tmp_path / "grey.png", "out": f"{tmp_path}/masks/"},
        "t5": {"text": "ab"},
        "wavegru": {"wavs": tmp_path / "tone.wav", "out": f"{tmp_path}/sounds/"},
    }
    options = {"text": "a [MASK]"} if recipe in BERTS else others.get(recipe, options)
    with pytest.raises(UserError, match=r"^--run .* are not numbers") as caught:
        call(run, **options, **({"steps": 1} if recipe in ("diffusion", "mage", "maskgit") else {}))
    assert caught.value.status == 1
    assert not (tmp_path / "x.npz").exists()


@pytest.mark.parametrize("out", ["x.npz", "x/"])
def test_many_images_are_written_a_batch_at_a_time(out, tmp_path):
    count, labels = 40, np.zeros(200, np.int32)
    batches = (np.full((5, 64, 64, 3), -1 + number / 20, np.float32) for number in range(count))
    tracemalloc.start()
    try:
        assert write_images(f"{tmp_path}/{out}", batches, labels, columns=8, seed=0) == 5 * count
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 * count * 64 * 64 * 3 / 2  # of uint8 pixels alone


COMPILED = [0]


def _count(name, seconds, **_):
    COMPILED[0] += name.endswith("backend_compile_duration")


jax.monitoring.register_event_duration_secs_listener(_count)


def test_other_numbers_of_the_image_sampler_run_the_same_program():
    recipe, (sizes, facts) = named("maskgit"), MODELS["maskgit"]
    config = dataclasses.replace(next(iter(recipe.presets.values())), model=sizes)
    model, tokenizer = recipe.model(config, facts)(jr.key(0)), _Levels()
    stream, seen = Stream(make_mesh()), []
    for options in (
        {"guidance": 2.0},
        {"guidance": 3.0},
        {"guidance": 3.0, "steps": 5, "temperature": 0.7, "choice_temperature": 0.0},
    ):
        changed = dataclasses.replace(config, decode=MaskedDecoding(**{"steps": 2} | options))
        tree = model, tokenizer, draw_masked(changed, facts), jr.key(0)
        stream.gather(drawn, tree, labelled(np.arange(3)))
        seen.append(COMPILED[0])
    assert seen[0] == seen[1] == seen[2]


class _Levels(eqx.Module):
    def decode(self, ids):
        return ids.reshape(8, 8, 1) / 8 - 1


def test_a_text_ends_at_the_end_of_text_of_its_vocabulary_unless_told_otherwise():
    pairs = train_byte_pairs("abc abc", 260)
    (end,) = pairs.encode("<|endoftext|>").tolist()
    assert pairs.ends == (end,)
    assert with_ends(TextSample(run="x", stop_id=(3,)), pairs).stop_id == (3, end)
    assert with_ends(TextSample(run="x", stop_id=(end,)), pairs).stop_id == (end,)
    assert with_ends(TextSample(run="x", end=False), pairs).stop_id == ()
    assert with_ends(TextSample(run="x"), CHARACTERS).stop_id == ()


@pytest.mark.parametrize("recipe", TEXTS)
def test_a_text_ends_before_its_stop_wherever_it_is_written(recipe, runs, tmp_path, capsys):
    options = {"prompt": "ab", "chars": 60, "seed": 1, "temperature": 1}

    def shown(*words_, **more):
        capsys.readouterr()
        assert call(runs[recipe], *words_, **options | more) == 0
        return capsys.readouterr().out

    whole = shown()[2:-1]
    stops = [whole[7:10], whole[20:22]]
    wanted = cut(whole, stops)
    assert len(wanted) < 12
    assert shown("--stop", *stops) == f"ab{wanted}\n"
    ids = [CHARACTERS.characters.index(char) for char in whole[9:11]]
    first = min(whole.index(char) for char in whole[9:11])
    assert shown("--stop-id", *map(str, ids)) == f"ab{whole[:first]}\n"
    shown("--stop", *stops, n=2, out=tmp_path / "x.jsonl")
    records = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (records[0], len(records)) == ({"prompt": "ab", "text": wanted, "seed": 1}, 2)
    shown("--stop", *stops, out=tmp_path / "x.txt")
    assert (tmp_path / "x.txt").read_text(encoding="utf-8") == f"ab{wanted}\n"
    assert "in place of the file before" in shown(out=tmp_path / "x.txt")


def test_a_text_is_cut_at_its_characters_with_what_was_held_back():
    asked = TextSample(run="x", chars=5, stop=("eef",))
    text = _Text(CHARACTERS, asked)
    assert [text(CHARACTERS.characters.index(char)) for char in "abceefgh"] == ["a", "b", "c", "", "ee", "", "", ""]
