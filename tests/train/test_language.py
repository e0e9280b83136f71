"""Language models as runs: trained on a text, resumed bit for bit, sampled as a stream; and what is refused."""

# A case is a row, however long.

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax.random as jr
import numpy as np
import pytest

from eqxgen.configs import GPTConfig
from tests.full import FULL, REASON, full
from tests.train.small_runs import metrics, same, weights, words
from train import gpt, rnn, sample
from train._errors import UsageError, UserError
from train.config.base import parse
from train.data import DataError, Part, TextConfig
from train.data.text.corpus import load_text
from train.evaluators.held_out import validation_loss
from train.evaluators.stream import Stream
from train.parallel import make_mesh
from train.tasks.facts import TextFacts
from train.tasks.language import held_out_windows

VERSE = "To be, or not to be: that is the question.\nWhether 'tis nobler in the mind to suffer\nThe slings and arrows\n"
RECIPES = {"gpt": gpt, "rnn": rnn}
TINY = {
    "gpt": ["--model.dim=16", "--model.depth=2", "--model.heads=2", "--model.context=16", "--model.dropout=0.1"],
    "rnn": ["--model.dim=16", "--model.depth=2", "--context=16", "--model.dropout=0.1"],
}
SHORT = [
    "--steps=6",
    "--batch-size=4",
    "--log-every=2",
    "--checkpoint-every=3",
    "--sample-every=0",
    "--sample-tokens=20",
    "--eval-batches=2",
]


def train(recipe, text, folder, *flags):
    """Trains a tiny model; gives the exit status."""
    given = [f"--data.name={text}", f"--run-dir={folder}", "--optim.warmup=2", *TINY[recipe], *SHORT, *flags]
    module = RECIPES[recipe]
    return module.main(parse(recipe, module.Config, module.PRESETS, "", given))


@pytest.fixture(scope="module")
def verse(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "verse.txt"
    path.write_text(VERSE * 10, encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=RECIPES)
def finished(request, verse, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / request.param
    assert train(request.param, verse, folder, "--eval-every=2", "--keep-best=val_loss") == 0
    return request.param, folder


@pytest.fixture
def of_gpt(finished):
    """A run of the GPT; with the long tables that of the RNN too, which has the same loop and streams."""
    if finished[0] != "gpt" and not FULL:
        pytest.skip(REASON)
    return finished


def unfinished(folder, copy):
    """A copy of a finished run, as if it had been stopped after its last step."""
    shutil.copytree(folder, copy)
    (copy / "summary.json").unlink()
    return copy


def test_a_run_goes_on_with_its_own_text_alone_unless_the_flag_allows_another(of_gpt, verse, tmp_path, capsys):
    recipe, folder = of_gpt
    copy, flags = unfinished(folder, tmp_path / "run"), ("--eval-every=2", "--keep-best=val_loss")
    text = verse.read_text(encoding="utf-8")
    try:
        verse.write_text(text[::-1], encoding="utf-8")
        with pytest.raises(UserError, match=r"holds a run on other data \(.* and now .*\): .* pass --data.changed"):
            train(recipe, verse, copy, *flags)
        assert train(recipe, verse, copy, *flags, "--data.changed") == 0
        assert "goes on with other data" in capsys.readouterr().out
    finally:
        verse.write_text(text, encoding="utf-8")
    assert train(recipe, verse, unfinished(folder, tmp_path / "same"), *flags) == 0


def test_a_run_of_the_version_before_resumes_and_says_that_its_text_could_not_be_compared(
    finished, verse, tmp_path, capsys
):
    recipe, folder = finished
    copy = unfinished(folder, tmp_path / "run")
    record = json.loads((copy / "config.json").read_text())
    del record["data"]
    for name in ("changed", "keep_newlines"):
        del record["config"]["data"][name]
    (copy / "config.json").write_text(json.dumps(record))
    assert train(recipe, verse, copy, "--eval-every=2", "--keep-best=val_loss") == 0
    assert "kept no fingerprint of the data" in capsys.readouterr().out


def test_every_file_of_a_run_has_the_mode_of_the_umask(finished):
    _, folder = finished
    umask = os.umask(0o022)
    os.umask(umask)
    modes = {path.name: path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()}
    assert {name: oct(mode) for name, mode in modes.items() if mode != 0o666 & ~umask} == {}
    assert {"model.safetensors", "best.safetensors", "vocabulary.json", "config.json"} <= modes.keys()


@full
def test_a_run_on_one_line_is_sampled_without_a_prompt(tmp_path, capsys):
    (tmp_path / "x.txt").write_text("to be or not " * 60, encoding="utf-8")
    assert train("gpt", tmp_path / "x.txt", tmp_path / "run") == 0
    assert len(drawn(tmp_path / "run", capsys, chars=20)) == 1 + 20 + 1


def test_a_run_writes_what_it_promises(finished):
    _, folder = finished
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["val_perplexity"] == pytest.approx(np.exp(summary["val_loss"]))
    assert summary["val_loss"] < np.log(len(set(VERSE))) + 0.5
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "val_loss" in line] == [2, 4]
    assert all(line["tokens_per_s"] == pytest.approx(16 * line["examples_per_s"]) for line in lines)
    written = (folder / "samples" / "step-0000006.txt").read_text(encoding="utf-8")
    assert len(written) == 21
    assert set(written) <= set(VERSE)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert f"windows of 16 tokens of a vocabulary of {len(set(VERSE))}" in card
    assert written.strip()[:8] in card
    assert (folder / "best.safetensors").exists()


def test_a_resumed_run_is_the_uninterrupted_one(finished, verse, tmp_path):
    recipe, folder = finished
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / "summary.json").unlink()
    shutil.rmtree(copy / "checkpoints" / "6")
    assert train(recipe, verse, copy, "--eval-every=2", "--keep-best=val_loss") == 0
    assert same(weights(copy), weights(folder))
    assert metrics(copy) == metrics(folder)


def drawn(folder, capsys, **options):
    capsys.readouterr()
    assert sample.main(words(run=folder, **options)) == 0
    return capsys.readouterr().out


def test_the_stream_is_the_batchs_text_and_the_files(of_gpt, capsys, tmp_path):
    _, folder = of_gpt
    alone = drawn(folder, capsys, prompt="To be", chars=40, seed=3)
    assert alone.startswith("To be")
    assert len(alone) == 5 + 40 + 1
    assert drawn(folder, capsys, prompt="To be", chars=40, seed=3, n=2).startswith(alone[:-1] + "\n---\nTo be")
    drawn(folder, capsys, prompt="To be", chars=40, seed=3, out=tmp_path / "out.txt")
    assert (tmp_path / "out.txt").read_text(encoding="utf-8") == alone
    assert drawn(folder, capsys, prompt="To be", chars=40, seed=4) != alone
    greedy = drawn(folder, capsys, prompt="To be", chars=9, temperature=0)
    assert (
        greedy
        == drawn(folder, capsys, prompt="To be", chars=9, beams=1)
        == drawn(folder, capsys, prompt="To be", chars=9, top_k=1)
    )


def test_text_comes_out_while_it_is_made(of_gpt):
    _, folder = of_gpt
    line = [sys.executable, "-m", "train.sample", *words(run=folder, prompt="To be", chars=100_000)]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=Path(__file__).parents[2])
    assert process.stdout is not None
    try:
        assert len(process.stdout.read(200)) == 200  # long before the 100,000
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()


BAD_SAMPLES = [
    ({"prompt": "Ωmega ß"}, UserError, r"--prompt: text must have characters of the vocabulary's \d+ alone: got 'Ω' at character 0, and in all 2 that it lacks"),
    ({"prompt": ""}, UsageError, "prompt must be one or more characters: got ''"),
    ({"top_k": 0}, UsageError, "top_k must be at least 1: got 0"),
    ({"temperature": -1}, UsageError, "temperature must be at least 0 and finite: got -1.0"),
    ({"top_p": 0}, UsageError, r"top_p must be in \(0, 1\]: got 0.0"),
    ({"min_p": 2}, UsageError, r"min_p must be in \(0, 1\]: got 2.0"),
    ({"chars": 0}, UsageError, "chars must be at least 1: got 0"),
    ({"n": 0}, UsageError, "n must be at least 1: got 0"),
    ({"beams": 0}, UsageError, "beams must be at least 1: got 0"),
    ({"beams": 3, "top_k": 2}, UsageError, "beams goes without top_k: a search draws nothing"),
    ({"beams": 1000}, UsageError, "--beams must be at most the vocabulary's"),
    ({"out": "/proc/x.txt"}, UserError, "--out /proc/x.txt: cannot be written"),
    ({"label": 3}, UsageError, "--label: no such flag.* is a run of train.(gpt|rnn)"),
    ({"run": "nowhere"}, UserError, "nowhere/config.json: no such file"),
]  # fmt: skip


@pytest.mark.parametrize(("options", "error", "message"), BAD_SAMPLES)
def test_a_wrong_option_of_sample_is_an_error(options, error, message, finished):
    given = {"run": finished[1], "chars": 3} | options
    with pytest.raises(error, match=message):
        sample.main(words(**given))


def test_a_prompt_longer_than_the_context_is_an_error_where_there_is_one(finished, capsys):
    recipe, folder = finished
    if recipe == "rnn":
        assert len(drawn(folder, capsys, prompt="to be " * 9, chars=3)) == 54 + 3 + 1
        return
    with pytest.raises(UserError, match="--prompt must be at most the model's 16 tokens: got 54; shorten it"):
        sample.main(words(run=folder, prompt="to be " * 9, chars=3))
    with pytest.raises(
        UsageError,
        match="--chars must be at most 15 with --beams and this prompt, as the model's context is 16 tokens: got",
    ):
        sample.main(words(run=folder, prompt="t", chars=16, beams=2))


BROKEN = {
    "of another text": (lambda path: path.write_text(path.read_text().replace("T", "U", 1)), r"vocabulary\.json: expected the vocabulary of the checkpoint, SHA-256"),
    "missing": (lambda path: path.unlink(), r"vocabulary\.json: expected a readable file"),
    "no JSON": (lambda path: path.write_text("{"), r"vocabulary\.json: expected the vocabulary of the checkpoint"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_vocabulary_that_is_not_the_models_is_an_error(case, finished, tmp_path):
    change, message = BROKEN[case]
    shutil.copytree(finished[1], tmp_path / "run")
    change(tmp_path / "run" / "vocabulary.json")
    with pytest.raises(DataError, match=message):
        sample.main(words(run=tmp_path / "run", chars=3))


@full
def test_a_run_on_ids_alone_trains_and_says_why_it_writes_no_text(tmp_path):
    (np.arange(2000, dtype="<u2") % 50).tofile(tmp_path / "ids.bin")
    assert train("gpt", tmp_path / "ids.bin", tmp_path / "run", "--data.vocab=50") == 0
    with pytest.raises(UserError, match="was trained on ids without a vocabulary, so it can write no text"):
        sample.main(words(run=tmp_path / "run", chars=3))


def test_byte_pairs_are_learnt_kept_and_written_out(verse, tmp_path, capsys):
    pytest.importorskip("tokenizers")
    assert train("gpt", verse, tmp_path / "run", "--data.tokenizer=bpe-300") == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["facts"]["vocab"] == 300
    assert len(drawn(tmp_path / "run", capsys, prompt="The slings", chars=30)) == 10 + 30 + 1


BAD_TEXTS = {
    "missing": (lambda p: p / "none.txt", [], r"none\.txt: expected a readable file"),
    "empty": (lambda p: (p / "x.txt").write_text("") or p / "x.txt", [], r"x\.txt: expected data, got an empty file"),
    "one character": (lambda p: (p / "x.txt").write_text("a") and p / "x.txt", [], "long enough to hold some of it out, got 1 characters"),
    "shorter than a window": (lambda p: (p / "x.txt").write_text("abc" * 9) and p / "x.txt", [], r"at least context \+ 1 = 17 tokens, got 3"),
    "not UTF-8": (lambda p: (p / "x.txt").write_bytes(b"caf\xe9" * 99) and p / "x.txt", [], r"x\.txt: expected UTF-8 text, got byte 0xe9 at offset 3"),
    "a folder without text": (lambda p: p, [], r"expected text files"),
    "a tokenizer that is not there": (lambda p: (p / "x.txt").write_text(VERSE) and p / "x.txt", ["--data.tokenizer=./none"], "--data.tokenizer must be bytes, chars, bpe-SIZE.* or a path: got './none'"),
    "no room for the bytes": (lambda p: (p / "x.txt").write_text(VERSE) and p / "x.txt", ["--data.tokenizer=bpe-20"], "--data.tokenizer bpe-20: size must be at least 257"),
    "ids without a vocabulary": (lambda p: (p / "x.bin").write_bytes(bytes(400)) and p / "x.bin", [], "x.bin: expected the size of its vocabulary, got none: give --data.vocab"),
    "ids above the vocabulary": (lambda p: np.arange(900, dtype="<u2").tofile(p / "x.bin") or p / "x.bin", ["--data.vocab=9"], "ids below the vocabulary's 9, got id 899 at token 899"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_TEXTS)
def test_a_text_that_cannot_be_trained_on_is_an_error(case, tmp_path):
    make, flags, message = BAD_TEXTS[case]
    if "bpe-" in " ".join(flags):
        pytest.importorskip("tokenizers")
    with pytest.raises((DataError, UserError), match=message):
        train("gpt", make(tmp_path), tmp_path / "run", *flags)
    assert not (tmp_path / "run").exists()


BAD_FLAGS = [
    (
        ["--data.name=shakespeare"],
        "data.name must be one of tiny_shakespeare, or a path: got 'shakespeare'; did you mean tiny_shakespeare",
    ),
    (["--data.held-out=1.5"], "data.held_out must be between 0 and 1: got 1.5"),
    (["--data.vocab=1"], r"data.vocab must be from 2 to 2\*\*32: got 1"),
    (["--data.image-size=8"], "--data.image-size: no such flag"),
    (["--eval-batches=-1"], "eval_batches must be at least 0: got -1"),
    (["--prompt="], "prompt must be one or more characters"),
    (["--sample-tokens=0"], "sample_tokens must be at least 1: got 0"),
    (["--model.experts=2", "--model.experts-top-k=3"], "experts_top_k must be from 1 to model.experts=2: got 3"),
    (["--model.experts=2", "--model.capacity-factor=0"], "model.capacity_factor must be positive and finite: got 0"),
    (["--model.capacity-factor=1"], "model.capacity_factor needs model.experts of at least 1: got capacity_factor=1"),
    (["--balance-weight=-1"], "balance_weight must be at least 0 and finite: got -1"),
    (["--model.heads=3"], "model.heads must divide model.dim: got model.dim=128, model.heads=3"),
]


@pytest.mark.parametrize(("flags", "message"), BAD_FLAGS)
def test_a_wrong_flag_is_one_line(flags, message):
    with pytest.raises(UsageError, match=message):
        parse("gpt", gpt.Config, gpt.PRESETS, "", flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model.state-dim=8"], "model.state_dim goes with model.cell=mamba2: got 8, model.cell=lstm"),
        (["--model.cell=mamba2", "--model.head-dim=5"], "model.head_dim must divide 2 . model.dim: got 512 and 5"),
        (["--model.cell=mamba"], "model.cell must be one of .*: got 'mamba'"),
    ],
)
def test_a_wrong_size_of_a_recurrent_model_is_one_line(flags, message):
    with pytest.raises(UsageError, match=message):
        parse("rnn", rnn.Config, rnn.PRESETS, "", flags)


def test_what_is_held_out_is_the_end_and_is_measured_alike_at_every_batch_size(verse):
    corpus = load_text(TextConfig(name=str(verse)), 16)
    whole = (VERSE * 10)[: corpus.train.tokens] + (VERSE * 10)[-corpus.held_out.tokens :]
    assert whole == VERSE * 10
    config = gpt.Config(model=GPTConfig(dim=16, depth=1, heads=2, context=16))
    model = gpt.model(config, TextFacts(corpus.vocab, 16))(jr.key(0))
    stream = Stream(make_mesh())
    loss = lambda *sizes: validation_loss(model, held_out_windows(corpus.held_out, *sizes), stream).result()
    assert loss(1, 0) == pytest.approx(loss(5, 0), rel=1e-6)
    assert loss(3, 2) == loss(3, 2)


@full
def test_a_run_with_experts_reports_its_routing(verse, tmp_path):
    assert train("gpt", verse, tmp_path, "--model.experts=4", "--model.capacity-factor=0.5") == 0
    last = metrics(tmp_path)[-1]
    assert last["overflow"] >= 0.4, "half of the places must drop near half of the choices"
    assert 1 <= last["expert_load"] <= 4
    total = last["token_loss"] + 0.01 * last["balance_loss"] + 0.001 * last["z_loss"]
    assert last["loss"] == pytest.approx(total, rel=1e-5)


def test_windows_of_training_are_those_of_the_place_in_the_batch(verse):
    corpus = load_text(TextConfig(name=str(verse)), 16)
    part = Part(3, np.arange(4, dtype=np.int32), np.zeros(4, np.int64))
    windows = corpus.train.windows(corpus.train.drawn(0, part))
    assert windows.shape == (4, 17)
    assert corpus.vocabulary is not None
    assert all(corpus.vocabulary.decode(window) in VERSE * 10 for window in windows)


@pytest.mark.parametrize("preset", ["gpt2", "llama", "mla"])
def test_a_large_preset_is_described_without_its_text(preset, capsys):
    config = parse(
        "gpt", gpt.Config, gpt.PRESETS, "", [f"--preset={preset}", "--dry-run", "--compile-for=cuda", "--batch-size=8"]
    )
    assert gpt.main(config) == 0
    said = capsys.readouterr().out
    assert "lowered for cuda" in said
    assert "[8, 1025]" in said or "[8, 2049]" in said
