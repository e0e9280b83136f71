"""Evaluators: streams over devices and processes, `--evals`, `--keep-best`, `train.evaluate`, signals."""

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.models.maskgit import MaskGIT
from tests.devices import ROOT, printed, printed_by_two
from tests.full import FULL, full
from tests.train.small_runs import TINY, metrics, tiny, words
from tests.train.stream_devices import MESHES
from train import evaluate, gpt, maskgit, vqgan
from train._errors import UsageError
from train.config.base import parse
from train.config.evals import CLASSIFIER, FIDELITY, HELD_OUT, JUDGES, TRAINED_ON_SAMPLES, periods
from train.data import load
from train.engine.recipe import Context
from train.evaluators.base import Evaluator, chosen
from train.evaluators.cas import trained_on_samples
from train.evaluators.classifier import classifier
from train.evaluators.examples import Examples, held_out_images, training_images
from train.evaluators.fidelity import fidelity
from train.evaluators.held_out import held_out
from train.evaluators.judge import Patched, _plan, judge_of
from train.evaluators.stream import Stopped, Stream
from train.parallel import make_mesh
from train.tasks.facts import TokenFacts


@pytest.fixture(scope="module")
def streamed():
    return printed("tests.train.stream_devices")


@pytest.mark.parametrize("case", ["one, in other batches", *MESHES])
def test_samples_and_metrics_depend_on_neither_batches_nor_devices(streamed, case):
    found, one = streamed[case], streamed["one"]
    assert found["in order"]
    assert found["ids"] == one["ids"]
    assert found["accuracy"] == one["accuracy"]
    np.testing.assert_allclose(found["mean"], one["mean"], rtol=1e-12)


@pytest.mark.parametrize("mesh", MESHES[-2:] if FULL else ())
def test_images_of_diffusion_depend_on_no_devices(streamed, mesh):
    found, one = streamed["denoised"][mesh], streamed["denoised"]["one"]
    assert np.std(one) > 0.1
    np.testing.assert_allclose(found, one, atol=2e-5)


def test_ids_that_are_decoded_from_memory_depend_on_no_devices(streamed):
    alone, parts = streamed["decoded"]
    assert len({tuple(ids) for ids in alone}) > 6
    assert parts == alone


def test_a_device_holds_its_part_of_the_parameters_while_it_samples(streamed):
    memory = streamed["memory"]
    assert memory.get("data=8", memory["one"])["arguments"] > 0.99
    assert memory["fsdp=8"]["arguments"] < 0.2
    assert sum(memory["fsdp=8"].values()) < 0.75 < sum(memory["one"].values())


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """A run as fsdp=8 on 8 virtual devices, and the memory of the programs of its samples and evaluators."""
    folder = tmp_path_factory.mktemp("split") / "run"
    return folder, printed("tests.train.evaluate_devices", str(folder))


@full
@pytest.mark.parametrize("program", ["drawn", "_Loss", "_Judged"])
def test_a_model_trained_in_parts_is_sampled_and_judged_in_parts(split, program):
    _, found = split
    assert sum(found["programs"][program]) < 0.5 * found["whole"]


@full
def test_a_run_in_parts_has_the_numbers_of_one_device(split):
    folder, _ = split
    assert evaluate.main(words(run=folder)) == 0
    summary, one = (json.loads((folder / f"{name}.json").read_text()) for name in ("summary", "evaluation"))
    assert one["device"] == "1 x cpu"
    assert summary["eval_loss"] == pytest.approx(one["eval_loss"], rel=1e-6)
    assert summary["sample_accuracy"] == pytest.approx(one["sample_accuracy"], abs=1 / 40)
    assert summary["sample_frechet"] == pytest.approx(one["sample_frechet"], rel=1e-2)
    assert summary["classifier_accuracy"] == one["classifier_accuracy"]


@full
def test_two_processes_share_the_examples_and_agree_on_every_number(tmp_path):
    outputs = printed_by_two("tests.train.stream_processes", XDG_CACHE_HOME=str(tmp_path))
    first, second = (json.loads(said.splitlines()[-1]) for said in outputs)
    assert sorted(first.pop("seen") + second.pop("seen")) == list(range(21))
    assert first == second
    assert first["hits"] == 6
    assert first["accuracy"] == first["again"] > 0.1


def test_a_signal_ends_a_stream_before_its_next_batch():
    answers = iter([False, False, True])
    stream = Stream(make_mesh(), lambda: next(answers))
    batches = stream.map(lambda tree, example: example["x"], (), Examples.of(2, x=np.arange(10)))
    assert next(batches).tolist() == [0, 1]
    with pytest.raises(Stopped):
        next(batches)


def test_the_held_out_loss_is_that_of_each_example_alone_and_the_same_at_every_call():
    config = tiny(Path("unused"))
    model = MaskGIT(64, 17, 10, TINY, key=jr.key(0))
    loss = maskgit.RECIPE.program(config, TokenFacts((8, 8, 1), 10, 64, 17)).loss
    rng = np.random.default_rng(0)
    arrays = {"ids": rng.integers(0, 17, (7, 64)).astype(np.int32), "label": rng.integers(0, 10, 7).astype(np.int32)}
    run = lambda batch: held_out(loss, Examples.of(batch, **arrays)).run(model, None, Stream(make_mesh()))["eval_loss"]
    quiet, sums = eqx.nn.inference_mode(model), []
    for index in range(7):
        batch = {name: jnp.asarray(array[index : index + 1]) for name, array in arrays.items()}
        batch["weight"] = jnp.ones(1)
        sums.append(loss(quiet, batch, jr.fold_in(jr.key(0), index)[None], Context()))
    wanted = sum(float(s.loss) for s in sums) / sum(float(s.weight) for s in sums)
    assert run(7) == pytest.approx(wanted, rel=1e-6)
    assert run(3) == pytest.approx(run(7), rel=1e-6)


def test_a_judge_of_the_real_images_themselves_finds_its_own_accuracy_and_no_distance():
    dataset = load(maskgit.PRESETS["digits"].data)
    judge = classifier(dataset, lambda tree, example: example["image"], held_out_images(dataset))
    found = judge.run((), None, Stream(make_mesh()))
    assert tuple(found) == CLASSIFIER.gives
    assert found["sample_accuracy"] == found["classifier_accuracy"] > 0.95
    assert found["sample_frechet"] == pytest.approx(0, abs=1e-6)


def test_a_signal_ends_the_training_of_a_judge_within_seconds(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("train.evaluators.training._SECONDS", 0.1)
    asked: list[float] = []

    def stopping():
        asked.append(time.perf_counter())
        return len(asked) > 3

    with pytest.raises(Stopped):
        judge_of(load(maskgit.PRESETS["digits"].data), Stream(make_mesh(), stopping, lambda text: None))
    assert asked[3] - asked[2] < 2  # the first has the compilation
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ((), {"held_out": 0, "classifier": 0}),
        (("none",), {}),
        (("classifier",), {"classifier": 0}),
        (("held_out:500", "classifier"), {"held_out": 500, "classifier": 0}),
    ],
)
def test_evals_are_read_with_their_periods(words, wanted):
    assert periods(words, (HELD_OUT, CLASSIFIER)) == wanted


def test_an_evaluator_runs_at_its_own_period_or_at_that_of_all():
    loss = Evaluator(HELD_OUT, lambda *_: {})
    assert [step for step in range(1, 13) if dataclasses.replace(loss, every=3).due(step, 4)] == [3, 6, 9, 12]
    assert [step for step in range(1, 13) if loss.due(step, 4)] == [4, 8, 12]
    assert not any(loss.due(step, 0) for step in range(1, 13))


def test_an_evaluator_that_the_data_lack_is_left_out_or_an_error_where_it_is_named():
    offered = (
        Evaluator(HELD_OUT, lambda *_: {}),
        Evaluator(CLASSIFIER, lambda *_: {}, lacks="the images have one class"),
    )
    assert [evaluator.kind for evaluator in chosen((), offered)] == [HELD_OUT]
    with pytest.raises(UsageError, match="--evals classifier must have data for it: the images have one class"):
        chosen(("classifier",), offered)


BAD = [
    (
        maskgit,
        "--evals held_ou",
        "evals must be of held_out, classifier, fidelity, cas, none: got 'held_ou': did you mean held_out?",
    ),
    (maskgit, "--evals none classifier", "evals must be of held_out, classifier, fidelity, cas, none: got 'none'"),
    (maskgit, "--evals held_out:0", "evals must be NAME or NAME:STEPS, such as held_out:500: got 'held_out:0'"),
    (maskgit, "--evals held_out held_out:5", "evals must name an evaluator once: got held_out twice"),
    (gpt, "--evals classifier", "evals must be of held_out, none: got 'classifier'"),
    (maskgit, "--eval-samples 1", "eval_samples must be at least 2: got 1"),
    (
        vqgan,
        "--keep-best psnr",
        "got psnr, and the evaluator reconstruction has no period; give --evals reconstruction:500",
    ),
    (
        maskgit,
        "--keep-best max:sample_accuracy --evals held_out:5",
        "got sample_accuracy, and the evaluator classifier",
    ),
]


@pytest.mark.parametrize(("recipe", "line", "message"), BAD, ids=[line for _, line, _ in BAD])
def test_evaluators_that_cannot_be_are_one_line_before_anything_is_read(recipe, line, message):
    with pytest.raises(UsageError) as error:
        parse(recipe.__name__.removeprefix("train."), recipe.Config, recipe.PRESETS, "", line.split())
    assert message in str(error.value)


def test_a_metric_that_no_loss_and_no_evaluator_gives_is_refused_before_the_first_step(tmp_path):
    with pytest.raises(
        UsageError, match=r"--keep-best must be a metric of this run, one of .*eval_loss.*got 'val_los'"
    ):
        maskgit.main(tiny(tmp_path / "run", keep_best="val_los"))
    assert not (tmp_path / "run").exists()


@full
@pytest.mark.parametrize(("values", "best"), [([1.0, np.nan, 0.5], 6), ([np.nan] * 3, None)])
def test_a_checkpoint_without_a_finite_metric_is_never_the_best(tmp_path, capsys, values, best):
    found = iter([*values, 0.0])
    loss = Evaluator(HELD_OUT, lambda *_: {"eval_loss": next(found)})
    made = maskgit.RECIPE.task
    recipe = dataclasses.replace(
        maskgit.RECIPE, task=lambda config, folder: dataclasses.replace(made(config, folder), evaluators=(loss,))
    )
    config = tiny(tmp_path / "run", steps=8, evals=("held_out:2",), keep_best="eval_loss", checkpoint_every=2)
    assert recipe.main(config) == 0
    assert (tmp_path / "run" / "best.safetensors").exists() == (best is not None)
    assert ("no best checkpoint: --keep-best eval_loss had no finite value" in capsys.readouterr().out) == (not best)
    if best:
        assert (tmp_path / "run" / "checkpoints" / str(best)).is_dir()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with an evaluator of its own period, and the best checkpoint by it."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    evals = ("held_out:4", "classifier")
    assert maskgit.main(tiny(folder, evals=evals, keep_best="eval_loss", checkpoint_every=2, eval_samples=30)) == 0
    return folder


def test_each_evaluator_runs_as_often_as_it_says(finished):
    lines = metrics(finished)
    assert [line["step"] for line in lines if "eval_loss" in line] == [4]
    assert not any("sample_accuracy" in line for line in lines)
    summary = json.loads((finished / "summary.json").read_text())
    assert {*HELD_OUT.gives, *CLASSIFIER.gives, "evaluation_seconds"} <= summary.keys()
    assert (finished / "best.safetensors").is_file()


def test_a_finished_run_is_evaluated_again_to_the_numbers_of_its_summary(finished, capsys):
    assert evaluate.main(words(run=finished, n=30)) == 0
    said = capsys.readouterr().out
    assert "evaluating held_out ..." in said
    assert "classifier: sample_accuracy" in said
    summary, again = (json.loads((finished / f"{name}.json").read_text()) for name in ("summary", "evaluation"))
    for name in (*HELD_OUT.gives, *CLASSIFIER.gives[:3]):
        assert again[name] == pytest.approx(summary[name], rel=1e-5)


def test_a_run_is_evaluated_with_other_options_of_sampling(finished, tmp_path):
    own, out = finished / "evaluation.json", tmp_path / "other.json"
    own.write_text("{}")
    assert evaluate.main(words(run=finished, n=20, evals="classifier", guidance=2.5, steps=2, out=out)) == 0
    again = json.loads(out.read_text())
    assert again["sampling"] == {"steps": 2, "guidance": 2.5}
    assert own.read_text() == "{}"
    assert json.loads((finished / "config.json").read_text())["config"]["decode"]["guidance"] != 2.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"evals": "reconstruction"},
            "--evals must be of held_out, classifier, fidelity, cas, none: got 'reconstruction'",
        ),
        ({"evals": "held_out:5"}, "evals must be names without a period: got held_out:5"),
        ({"n": 1}, "n must be at least 2: got 1"),
        ({"mesh": "fsdp=3"}, "--mesh must have as many places as there are devices, 1: got fsdp=3"),
        ({"guidance": "nan"}, "guidance must be at least 0 and finite: got nan"),
        ({"steps": 0}, "steps must be at least 1: got 0"),
        ({"eta": 0.5}, "--eta: no such flag"),
    ],
)
def test_an_evaluation_that_cannot_be_is_one_line(finished, options, message):
    with pytest.raises(UsageError) as error:
        evaluate.main(words(run=finished, **options))
    assert message in str(error.value)


@full
def test_no_evaluator_makes_a_run_without_a_judge(tmp_path, monkeypatch):
    monkeypatch.setattr("train.evaluators.classifier.judge_of", lambda *_: pytest.fail("not reached"))
    assert maskgit.main(tiny(tmp_path / "run", steps=2, evals=("none",))) == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["evaluation_seconds"] == 0
    assert "eval_loss" not in summary


IMPATIENT = """
import runpy
from train.evaluators import stream
stream.PATIENCE = 0.5
runpy.run_module("train.maskgit", run_name="__main__", alter_sys=True)
"""
"""`python -m train.maskgit`, which says after half a second how far an evaluation is."""


@full
def test_a_signal_ends_an_evaluation_within_seconds_and_the_same_command_takes_it_up(tmp_path):
    flags = ["--steps=2", "--model.dim=16", "--model.heads=2", "--model.depth=1", "--model.hidden-dim=32"]
    flags += ["--decode.steps=2", "--batch-size=8", f"--run-dir={tmp_path / 'run'}", "--eval-samples=10000000"]
    command = [sys.executable, "-c", IMPATIENT, *flags]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "of 10,000,000 examples" in line:
                break
        process.send_signal(signal.SIGTERM)
        begin = time.monotonic()
        output, _ = process.communicate(timeout=120)
    assert process.returncode == 143, output
    assert time.monotonic() - begin < 60
    assert "SIGTERM: training is complete and saved; the same command evaluates it again" in output
    assert not (tmp_path / "run" / "summary.json").exists()


def test_fidelity_of_real_images_has_no_distance_and_copies_are_flagged(monkeypatch):
    fewer = lambda dataset, name: _plan(dataset, name) | ({} if name == "judge" else {"steps": 90})
    monkeypatch.setattr("train.evaluators.judge._plan", fewer)
    dataset = load(maskgit.PRESETS["digits"].data)
    stream, draw = Stream(make_mesh()), lambda tree, example: example["image"]
    held = fidelity(dataset, draw, held_out_images(dataset))
    found = held.run((), None, stream)
    assert tuple(found) == FIDELITY.gives
    assert found["fd_judge"] == pytest.approx(0, abs=1e-6)
    assert found["precision_judge"] == found["recall_judge"] == found["coverage_judge"] == 1
    assert found["memorisation_judge"] == pytest.approx(1, rel=1e-5)
    assert found["memorisation_flagged_judge"] == 0
    for name in JUDGES:
        assert len(held.notes[f"{name}_sha256"]) == 64
        assert found[f"accuracy_{name}"] > (0.9 if name == "judge" else 0.3)
    assert found["fd_judge_vit"] == pytest.approx(0, abs=1e-6)
    assert held.notes["judge_sha256"] != held.notes["judge_vit_sha256"]
    copies = fidelity(dataset, draw, training_images(dataset).first(100)).run((), None, stream)
    assert copies["memorisation_judge"] < 1e-3
    assert copies["memorisation_flagged_judge"] == 1
    with pytest.raises(UsageError, match="--evals fidelity must have more samples than 64 features and 15 sizes"):
        fidelity(dataset, draw, held_out_images(dataset).first(79)).run((), None, stream)


@pytest.mark.parametrize("shape", [(8, 8, 1), (31, 37, 3), (64, 64, 3)], ids=str)
def test_the_second_judge_takes_images_of_any_sides(shape):
    net = Patched(*shape, 5, key=jr.key(0))
    image = jr.normal(jr.key(1), shape)
    assert net.features(image).shape == (64,)
    assert net(image, key=jr.key(2)).shape == (5,)
    changed = net.features(image.at[-1, -1].set(9.0))
    assert not jnp.allclose(changed, net.features(image))  # nothing is cut off


@full
def test_a_classifier_trained_on_real_images_as_samples_is_as_good_as_the_judge(monkeypatch):
    monkeypatch.setattr("train.evaluators.judge._plan", lambda dataset: _plan(dataset) | {"steps": 60})
    monkeypatch.setattr("train.evaluators.cas.judge_of", lambda *_: SimpleNamespace(accuracy=0.97))
    dataset = load(maskgit.PRESETS["digits"].data)
    cas = trained_on_samples(dataset, lambda tree, example: example["image"], training_images(dataset))
    found = cas.run((), None, Stream(make_mesh()))
    assert tuple(found) == TRAINED_ON_SAMPLES.gives
    assert found["cas_accuracy"] > 0.7


def test_evaluators_that_are_asked_for_do_not_run_by_default():
    offered = HELD_OUT, CLASSIFIER, FIDELITY, TRAINED_ON_SAMPLES
    assert periods((), offered) == {"held_out": 0, "classifier": 0}
    assert periods(("fidelity:7", "cas"), offered) == {"fidelity": 7, "cas": 0}
