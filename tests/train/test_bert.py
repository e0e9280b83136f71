"""train.bert and train.glue: losses at the chosen places, runs from texts to answers, starts from runs and folders."""

# A case is a row, however long.

import json
import shutil

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, log_loss, matthews_corrcoef

from eqxgen.configs import BERTConfig
from eqxgen.models import BERT, BERTClassifier, BERTMaskedLM
from eqxgen.pretrained.bert import from_pretrained, to_pretrained
from tests import full as tables
from tests.full import full
from tests.train.small_runs import crashed_and_resumed, metrics, same, weights
from train import bert, evaluate, glue, sample
from train._errors import UsageError
from train.config.base import parse
from train.config.evals import DEV
from train.data.text.word_pieces import SPECIAL, WordPieces
from train.engine.recipe import Context
from train.evaluators.examples import Examples
from train.evaluators.scores import scores
from train.evaluators.stream import Stream
from train.parallel import make_mesh
from train.tasks.facts import LabelFacts, TextFacts

SIZES = [f"--model.{name}" for name in ("dim=16", "depth=1", "heads=2", "hidden-dim=32", "context=12")]
SHORT = ["--steps=6", "--batch-size=8", "--log-every=2", "--checkpoint-every=3", "--sample-every=0", "--optim.warmup=2"]
WORDS = ["who", "what", "where", "when", "how", "why", "which", "whose"]
CONFIG = BERTConfig(dim=16, depth=2, heads=2, hidden_dim=32, context=12, dropout=0.1)


def rows(count=90):
    """Questions whose first word decides the label."""
    rng = np.random.default_rng(0)
    for number in range(count):
        kind = number % 2
        words = [*rng.choice(WORDS, 4), f"no{number % 7}"]
        yield f"{'yes' if kind else 'no'}\t{'is' if kind else 'was'} it {' '.join(words)} {number} ?"


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    path = tmp_path_factory.mktemp("tables") / "questions.tsv"
    path.write_text("\n".join(["answer\tquestion", *rows(), ""]), encoding="utf-8")
    return path


def config_of(module, table, folder, *flags, columns=("answer", "question")):
    given = {flag.partition("=")[0] for flag in flags}
    short = [flag for flag in SHORT if flag.partition("=")[0] not in given]
    words = [f"--data.name={table}", "--data.columns", *columns, f"--run-dir={folder}", *SIZES, *short, *flags]
    return parse(module.RECIPE.name, module.Config, module.PRESETS, "", words)


@pytest.fixture(scope="module")
def masked(questions, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "bert"
    assert bert.main(config_of(bert, questions, folder)) == 0
    return folder


@pytest.fixture(scope="module")
def labelled(questions, masked, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "glue"
    assert glue.main(config_of(glue, questions, folder, f"--from={masked}")) == 0
    return folder


@full
def test_a_run_of_masked_words_is_resumed_bit_for_bit(masked, questions, tmp_path, monkeypatch):
    crashed_and_resumed(bert, config_of(bert, questions, tmp_path / "run"), 5, monkeypatch)
    assert same(weights(tmp_path / "run"), weights(masked))
    assert metrics(tmp_path / "run")[-1] == metrics(masked)[-1]
    summary = json.loads((masked / "summary.json").read_text())
    assert summary["masked_perplexity"] == pytest.approx(np.exp(summary["masked_loss"]))
    assert "[" in (masked / "samples" / "step-0000006.txt").read_text()


@full
def test_a_classifier_takes_the_weights_and_the_words_of_a_run_and_is_resumed_bit_for_bit(
    labelled, masked, questions, tmp_path, monkeypatch
):
    crashed_and_resumed(glue, config_of(glue, questions, tmp_path / "run", f"--from={masked}"), 5, monkeypatch)
    assert same(weights(tmp_path / "run"), weights(labelled))
    record = json.loads((labelled / "config.json").read_text())
    assert (record["from"]["left"], record["facts"]["classes"]) == (4, 2)
    assert (labelled / "vocabulary.json").read_bytes() == (masked / "vocabulary.json").read_bytes()
    summary = json.loads((labelled / "summary.json").read_text())
    assert {"test_accuracy", "test_f1", "test_mcc", "eval_loss"} <= summary.keys()
    assert json.loads((labelled / "classes.json").read_text()) == ["no", "yes"]
    assert (labelled / "samples" / "step-0000006.tsv").read_text().startswith("label\tguess\ttext\n")
    assert evaluate.main([f"--run={labelled}"]) == 0
    found = json.loads((labelled / "evaluation.json").read_text())
    assert {name: found[name] for name in found if name.startswith("test_")} == {
        name: summary[name] for name in summary if name.startswith("test_")
    }


def test_answers_of_a_run_are_printed_or_written(masked, labelled, tmp_path, capsys):
    assert sample.main([f"--run={masked}", "--text", "is it [MASK] [MASK] ?", "--top=2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "is it [MASK] [MASK] ?"
    assert [len(line.split(", ")) for line in lines[1:]] == [2, 2]
    out = tmp_path / "x.jsonl"
    assert sample.main([f"--run={labelled}", "--text", "is it so ?", "was it ?", f"--out={out}"]) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [record["text"] for record in records] == ["is it so ?", "was it ?"]
    for record in records:
        assert record["label"] in ("no", "yes")
        assert sum(record["probabilities"].values()) == pytest.approx(1)


def test_a_start_from_texts_that_are_tested_on_is_refused_unless_it_is_allowed(questions, masked, tmp_path, capsys):
    lines = questions.read_text(encoding="utf-8").splitlines()
    other = tmp_path / "other.tsv"
    other.write_text("\n".join([lines[0], *(f"{line} !" for line in lines[1:]), ""]), encoding="utf-8")
    config = config_of(glue, other, tmp_path / "run", f"--from={masked}", "--data.fold=4")
    message = (
        rf"^--from {masked}: was trained on \d+ of the \d+ texts of .*other.tsv's part test, .*--data.allow-overlap"
    )
    with pytest.raises(UsageError, match=message):
        glue.main(config)
    more = config_of(glue, other, tmp_path / "run", f"--from={masked}", "--data.fold=4", "--data.allow-overlap", "--steps=2")  # fmt: skip
    assert glue.main(more) == 0
    assert "was trained on" in capsys.readouterr().out


@full
def test_grades_are_learnt_as_numbers(questions, tmp_path, capsys):
    path = tmp_path / "grades.tsv"
    text = questions.read_text(encoding="utf-8").replace("yes\t", "1.5\t").replace("no\t", "-0.5\t")
    path.write_text(text, encoding="utf-8")
    assert glue.main(config_of(glue, path, tmp_path / "run", "--data.grades", "--word-dropout=0")) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert {"test_pearson", "test_spearman", "eval_loss"} <= summary.keys()
    assert "test_accuracy" not in summary
    capsys.readouterr()
    assert sample.main([f"--run={tmp_path / 'run'}", "--text=is it ?"]) == 0
    grade, text = capsys.readouterr().out.strip().split("\t")
    assert np.isfinite(float(grade))
    assert text == "is it ?"


def published(folder, model, vocabulary):
    to_pretrained(model, folder)
    (folder / "vocab.txt").write_text("\n".join([*vocabulary.pieces, ""]), encoding="utf-8")


VOCABULARY = WordPieces((*SPECIAL, *WORDS, "is", "was", "it", "?", *(f"no{number}" for number in range(7))))
FOLDERS = {
    "masked": (BERTMaskedLM, 4),
    "encoder": (BERT, 2),
    "classes": (lambda vocab, config, key: BERTClassifier(vocab, 2, config, key=key), 0),
}


@pytest.mark.parametrize("kind", tables.rows(FOLDERS, "masked", "encoder"))
def test_a_published_folder_gives_its_weights_and_its_vocabulary(kind, questions, tmp_path):
    make, left = FOLDERS[kind]
    sizes = BERTConfig(dim=16, depth=1, heads=2, hidden_dim=32, context=12)
    model = make(VOCABULARY.size, sizes, key=jr.key(3))
    published(tmp_path / "hub", model, VOCABULARY)
    flags = (f"--from={tmp_path / 'hub'}", "--model.pooling=first", "--optim.learning-rate=1e-12", "--steps=2")
    assert glue.main(config_of(glue, questions, tmp_path / "run", *flags)) == 0
    record = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (record["from"]["left"], record["facts"]["vocab"]) == (left, VOCABULARY.size)
    found = weights(tmp_path / "run")["bert.embedding.weight"]
    np.testing.assert_allclose(found, getattr(model, "bert", model).embedding.weight, atol=1e-9)
    if kind == "masked":
        with pytest.raises(UsageError, match=r"model\.bert\.pooling must be first, as the published model's: got mean"):
            glue.main(config_of(glue, questions, tmp_path / "mean", f"--from={tmp_path / 'hub'}"))
        assert bert.main(config_of(bert, questions, tmp_path / "more", *flags)) == 0
        exported = from_pretrained(tmp_path / "hub")
        assert eqx.tree_equal(exported.bert.stack, model.bert.stack)
    if kind == "classes":
        other = tmp_path / "three.tsv"
        lines = questions.read_text(encoding="utf-8").splitlines()
        other.write_text("\n".join(f"maybe{line[line.index(chr(9)):]}" if n % 3 == 1 else line for n, line in enumerate(lines)))  # fmt: skip
        with pytest.raises(UsageError, match="its head must be of the 3 classes of the data: got 2; --new-head"):
            glue.main(config_of(glue, other, tmp_path / "three", *flags))


def test_a_vocabulary_beside_that_of_the_start_is_refused(masked, questions, tmp_path):
    with pytest.raises(UsageError, match=r"--data\.tokenizer words-99: must be left out with --from"):
        config_of(glue, questions, tmp_path, f"--from={masked}", "--data.tokenizer=words-99")
    shutil.copytree(masked, tmp_path / "bare")
    (tmp_path / "bare" / "vocabulary.json").unlink()
    with pytest.raises(ValueError, match=r"bare: expected vocabulary.json, .*, got none of them"):
        glue.main(config_of(glue, questions, tmp_path / "run", f"--from={tmp_path / 'bare'}"))


def test_the_masked_loss_is_that_of_the_chosen_places_and_padding_does_not_count():
    config = bert.Config(model=CONFIG)
    program = bert.RECIPE.program(config, TextFacts(30, 12))
    model = eqx.nn.inference_mode(program.init(jr.key(0)))
    ids = np.asarray([[2, 9, 4, 7, 3, 0, 0, 0, 0, 0, 0, 0], [2, 4, 12, 13, 14, 15, 16, 17, 18, 19, 4, 3]], np.int32)
    batch = {"ids": ids, "types": np.zeros_like(ids), "length": np.asarray([5, 12], np.int32)}
    batch |= {"places": np.asarray([[2, 0], [1, 10]], np.int32), "targets": np.asarray([[8, 2], [11, 20]], np.int32)}
    batch |= {"chosen": np.asarray([[1, 0], [1, 1]], np.float32), "weight": np.ones(2, np.float32)}
    batch = {name: jnp.asarray(array) for name, array in batch.items()}
    total = jax.jit(lambda batch: program.loss(model, batch, jr.split(jr.key(1), 2), Context()))
    sums = total(batch)
    whole = [np.asarray(jax.nn.log_softmax(model(row[:n]))) for row, n in zip(batch["ids"], (5, 12))]
    expected = -(whole[0][2, 8] + whole[1][1, 11] + whole[1][10, 20])
    assert float(sums.loss) == pytest.approx(float(expected), rel=1e-5)
    assert float(sums.weight) == 3
    padded = total(batch | {"ids": batch["ids"].at[0, 5:].set(17)})
    assert float(padded.loss) == pytest.approx(float(sums.loss), rel=1e-6)
    empty = total(batch | {"weight": jnp.asarray([1.0, 0.0])})
    assert float(empty.loss) == pytest.approx(float(-whole[0][2, 8]), rel=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "max"])
def test_the_pooled_states_leave_padding_out(pooling):
    model = BERTClassifier(30, 3, BERTConfig(dim=16, depth=1, heads=2, context=12, pooling=pooling), key=jr.key(0))
    ids, mask = jnp.asarray([2, 9, 7, 3, 0, 0]), jnp.arange(6) < 4
    call = lambda ids, mask: model(ids, mask=mask, inference=True)
    np.testing.assert_allclose(call(ids, mask), call(ids[:4], None), rtol=2e-5, atol=1e-6)
    states = model.bert(ids[:4], inference=True)
    np.testing.assert_allclose(
        model.bert.pooled(states),
        jnp.tanh(model.bert.pooler(getattr(states, pooling)(axis=0))),
        rtol=1e-5,
        atol=1e-6,
    )
    np.testing.assert_array_equal(
        model.bert.pooled(states, jnp.zeros(4, bool)), jnp.tanh(model.bert.pooler(jnp.zeros(16)))
    )
    with pytest.raises(ValueError, match=f"pooling must be first, as published models': got {pooling}"):
        to_pretrained(model, "nowhere")


class Given(eqx.Module):
    """Logits that are written into the tokens."""

    table: jax.Array

    def __call__(self, ids, types, *, mask, key=None):
        return self.table[ids[0]]


CASES = {
    "three classes": (3, lambda rng: (rng.normal(size=(70, 3)), rng.integers(0, 3, 70))),
    "two classes": (2, lambda rng: (rng.normal(size=(70, 2)), rng.integers(0, 2, 70))),
    "one class guessed": (2, lambda rng: (np.tile([1.0, 0.0], (40, 1)), rng.integers(0, 2, 40))),
    "one class given": (2, lambda rng: (rng.normal(size=(40, 2)), np.ones(40, int))),
    "a class that is neither": (4, lambda rng: (rng.normal(size=(9, 4)) * [1, 1, 1, 0] - [0, 0, 0, 9], np.arange(9) % 3)),
    "grades": (1, lambda rng: (rng.normal(size=(70, 1)), rng.normal(size=70))),
    "grades with ties": (1, lambda rng: (rng.integers(0, 4, (70, 1)) / 2, rng.integers(-2, 3, 70) / 4)),
    "grades of one value": (1, lambda rng: (np.ones((30, 1)), rng.normal(size=30))),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_of_scikit_learn_and_scipy(case):
    classes, draw = CASES[case]
    table, labels = draw(np.random.default_rng(5))
    table = table.astype(np.float32)
    ids = np.repeat(np.arange(len(table), dtype=np.int32)[:, None], 3, axis=1)
    kind = np.float32 if classes == 1 else np.int32
    examples = Examples.of(32, ids=ids, types=ids, length=np.full(len(ids), 3, np.int32), label=labels.astype(kind))
    found = scores(examples, classes, DEV).run(Given(jnp.asarray(table)), None, Stream(make_mesh()))
    if classes == 1:
        guesses, grades = table[:, 0].astype(np.float64), labels.astype(np.float32).astype(np.float64)
        expected = {"loss": np.mean((guesses - grades) ** 2), "pearson": 0.0, "spearman": 0.0}
        if guesses.std() > 0:
            expected |= {"pearson": pearsonr(guesses, grades)[0], "spearman": spearmanr(guesses, grades)[0]}
    else:
        guesses = table.argmax(axis=1)
        average = {"average": "binary"} if classes == 2 else {"average": "macro"}
        expected = {
            "accuracy": accuracy_score(labels, guesses),
            "f1": f1_score(labels, guesses, zero_division=0.0, **average),
            "mcc": matthews_corrcoef(labels, guesses),
        }
        shares = np.exp(table.astype(np.float64))
        loss = log_loss(labels, shares / shares.sum(axis=1, keepdims=True), labels=range(classes))
        assert found["eval_loss"] == pytest.approx(loss, rel=1e-5)
    for name, value in expected.items():
        assert found[f"eval_{name}"] == pytest.approx(value, rel=1e-12, abs=1e-12), name


def test_label_smoothing_is_of_the_loss_alone_and_grades_have_squares_of_errors():
    config = glue.Config(model=CONFIG, label_smoothing=0.2)
    ids = jnp.asarray([[2, 9, 7, 3], [2, 8, 6, 3]])
    batch = {"ids": jnp.pad(ids, ((0, 0), (0, 8))), "types": jnp.zeros((2, 12), int), "length": jnp.asarray([4, 4])}
    batch |= {"weight": jnp.asarray([1.0, 1.0])}
    for classes, label in ((3, jnp.asarray([2, 0])), (1, jnp.asarray([1.5, -2.0]))):
        program = glue.RECIPE.program(config, LabelFacts(30, 12, classes=classes))
        model = eqx.nn.inference_mode(program.init(jr.key(0)))
        sums = program.loss(model, batch | {"label": label}, jr.split(jr.key(0), 2), Context())
        rows = np.stack([np.asarray(model(row), np.float64) for row in ids])
        if classes == 1:
            assert float(sums.loss) == pytest.approx(float(np.sum((rows[:, 0] - np.asarray(label)) ** 2)), rel=1e-4)
        else:
            logs = np.asarray(jax.nn.log_softmax(rows))
            hit = logs[np.arange(2), np.asarray(label)]
            expected = -np.sum(0.8 * hit + 0.2 * logs.mean(axis=1))
            assert float(sums.loss) == pytest.approx(float(expected), rel=1e-4)
