"""The command line: what a user's mistakes say, what they leave alone, and that the README's commands run."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from tests.train.small_runs import tiny, words
from train import maskgit, sample, vqgan
from train._errors import UsageError, UserError
from train.config import base as configs
from train.engine.command import run

ROOT = Path(__file__).parents[2]
RECIPES = {"maskgit": maskgit, "vqgan": vqgan}


def command(recipe, *flags):
    """A recipe's command in this process: its exit status."""
    module = RECIPES[recipe]
    with pytest.raises(SystemExit) as exit_:
        run(lambda: module.main(configs.parse(recipe, module.Config, module.PRESETS, "", flags)))
    return exit_.value.code


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--stepz 3", "--stepz.*--steps"),
        ("--steps many", "--steps.*many"),
        ("--steps 0", "steps must be at least 1: got 0"),
        ("--batch-size -4", "batch_size must be at least 1: got -4"),
        ("--seed -1", r"seed must be in \[0, 2\*\*32\): got -1"),
        ("--ema.decay 1.5", r"ema.decay must be in \[0, 1\): got 1.5"),
        ("--keep 0", "keep must be at least 1: got 0"),
        ("--sample-every -1", "sample_every must be at least 0: got -1"),
        ("--preset imagnet", "--preset must be one of digits, .*: got 'imagnet'"),
        ("--precision float8", "float8"),
        ("--optim.learning-rate nan", "optim.learning_rate must be positive and finite: got nan"),
        ("--optim.learning-rate -1", "optim.learning_rate must be positive and finite: got -1"),
        ("--optim.beta1 1.5", r"optim.beta1 must be in \[0, 1\): got 1.5"),
        ("--optim.clip 0", "optim.clip must be positive: got 0"),
        ("--optim.warmup -1", "optim.warmup must be at least 0: got -1"),
        ("--optim.weight-decay -0.1", "optim.weight_decay must be at least 0 and finite: got -0.1"),
        ("--compile-for cuda", "compile_for goes with --dry-run"),
        ("--data.name minst", "data.name must be one of .*did you mean mnist"),
        ("--dry-run --data.image-size 16", "data.image_size must be 8 with data.name=digits, .*: got 16; leave it out"),
        ("--data.image-size 0", "data.image_size must be between 1 and 8192: got 0"),
    ],
)
def test_a_wrong_flag_ends_with_status_2_and_its_name(recipe, flags, message, capsys):
    assert command(recipe, *shlex.split(flags)) == 2
    assert re.search(message, said(capsys), re.DOTALL)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--model.heads 5", "model.heads must divide model.dim: got model.dim=96, model.heads=5"),
        ("--model.dropout 1", r"model.dropout must be in \[0, 1\): got 1"),
        ("--model.placement middle", "model.placement must be pre or post: got 'middle'"),
        ("--label-dropout 2", r"label_dropout must be in \[0, 1\): got 2"),
        ("--decode.steps 0", "decode.steps must be at least 1: got 0"),
        ("--decode.guidance -1", "decode.guidance must be at least 0 and finite: got -1"),
        ("--decode.schedule cos", "schedule must be one of cosine, .*: got 'cos'"),
        ("--decode.schedule power-2", "exponent of schedule power"),
    ],
)
def test_a_wrong_flag_of_maskgit_ends_with_status_2_and_its_name(flags, message, capsys):
    assert command("maskgit", *shlex.split(flags)) == 2
    assert re.search(message, said(capsys), re.DOTALL)


def said(capsys):
    """All that was printed, without the frames that tyro draws, in one line."""
    output = capsys.readouterr()
    return " ".join(re.sub("[│╭╮╰╯─]", " ", output.out + output.err).split())


def test_more_guesses_than_tokens_is_a_usage_error(tmp_path, capsys):
    assert command("maskgit", "--run-dir", str(tmp_path / "r"), "--decode.steps", "65") == 2
    assert "--decode.steps must be from 1 to the number of tokens, 64: got 65" in said(capsys)
    assert not (tmp_path / "r").exists()


def test_a_batch_that_the_devices_cannot_share_is_a_usage_error(tmp_path):
    env = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    line = [sys.executable, "-m", "train.maskgit", "--batch-size", "12", "--run-dir", str(tmp_path / "r")]
    done = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert (
        done.stderr.splitlines()[-1]
        == "error: --batch-size must be a multiple of the number of devices, 8: got 12; try 16"
    )
    assert not (tmp_path / "r").exists()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of each recipe, on digits."""
    folder = tmp_path_factory.mktemp("runs")
    flags = [
        "--steps",
        "3",
        "--batch-size",
        "32",
        "--log-every",
        "1",
        "--sample-every",
        "0",
        "--model.width",
        "8",
        "--model.blocks",
        "1",
        "--model.latent-dim",
        "4",
        "--model.codes",
        "16",
    ]
    assert command("vqgan", "--run-dir", str(folder / "vqgan"), *flags) == 0
    assert maskgit.main(tiny(folder / "maskgit", steps=2, tokenizer=str(folder / "vqgan"))) == 0
    return folder


def test_a_tokenizer_run_says_how_well_it_reconstructs(finished):
    summary = json.loads((finished / "vqgan" / "summary.json").read_text())
    assert {
        "psnr",
        "codebook_usage",
        "codebook_perplexity",
        "sample_accuracy",
        "sample_frechet",
        "eval_loss",
    } <= summary.keys()
    assert 0 < summary["codebook_usage"] <= 1


def test_a_run_keeps_its_tokenizer_and_its_samples_do_not_need_the_other(finished, tmp_path):
    import shutil

    moved = tmp_path / "moved"
    shutil.copytree(finished / "maskgit", moved)
    assert (moved / "tokenizer.safetensors").read_bytes() == (finished / "vqgan" / "model.safetensors").read_bytes()
    out = tmp_path / "out.png"
    assert sample.main(words(run=moved, n=6, columns=3, steps=2, out=out)) == 0
    with Image.open(out) as picture:
        assert picture.size[0] > picture.size[1]


def test_sampling_a_tokenizer_shows_originals_above_reconstructions(finished, tmp_path):
    out = tmp_path / "pairs.png"
    assert sample.main(words(run=finished / "vqgan", n=8, columns=4, out=out)) == 0
    with Image.open(out) as picture:
        pixels = np.asarray(picture)
    assert pixels.std() > 0


def broken(name, change):
    """A copy of the finished runs with one thing wrong."""

    def make(finished, tmp_path):
        import shutil

        shutil.copytree(finished, tmp_path / "runs")
        change(tmp_path / "runs" / name)
        return tmp_path / "runs"

    return make


def flip(path):
    data = bytearray(path.read_bytes())
    data[20] ^= 255
    path.write_bytes(bytes(data))


def describe(change):
    """Rewrites the description inside a model's file."""

    def rewrite(path):
        arrays = load_file(path)
        with safe_open(path, framework="numpy") as file:
            description = json.loads(file.metadata()["eqxgen"])
        change(description)
        save_file(arrays, path, metadata={"eqxgen": json.dumps(description)})

    return rewrite


BAD_RUNS = {
    "no config": (broken("maskgit/config.json", Path.unlink), "config.json: no such file: is .* the folder of a run"),
    "config is no JSON": (
        broken("maskgit/config.json", lambda p: p.write_text("{")),
        "config.json: cannot be read as JSON",
    ),
    "config is a list": (
        broken("maskgit/config.json", lambda p: p.write_text("[]")),
        "expected the config of a run of ar, bert, classify, ",
    ),
    "another recipe": (
        broken("maskgit/config.json", lambda p: p.write_text('{"recipe": "painter"}')),
        "got recipe 'painter'",
    ),
    "no model": (broken("maskgit/model.safetensors", Path.unlink), "model.safetensors: no such file"),
    "empty model": (
        broken("maskgit/model.safetensors", lambda p: p.write_bytes(b"")),
        "model.safetensors: this file is damaged",
    ),
    "truncated model": (
        broken("maskgit/model.safetensors", lambda p: p.write_bytes(p.read_bytes()[:-9])),
        "model.safetensors: this file is damaged",
    ),
    "altered model": (broken("maskgit/model.safetensors", flip), "model.safetensors: this file is damaged"),
    "description without facts": (
        broken("maskgit/model.safetensors", describe(lambda d: d.pop("facts"))),
        "model.safetensors: facts must be an object: got None; was it edited",
    ),
    "description of impossible sizes": (
        broken("maskgit/model.safetensors", describe(lambda d: d["config"]["model"].update(heads=5))),
        "model.safetensors: this is not a config of train.maskgit",
    ),
    "tokenizer of unknown sizes": (
        broken("maskgit/tokenizer.safetensors", describe(lambda d: d["config"]["model"].update(wings=2))),
        "tokenizer.safetensors: this is not a config of train.vqgan",
    ),
    "no tokenizer": (
        broken("maskgit/tokenizer.safetensors", Path.unlink),
        "--run .*maskgit: has no tokenizer.safetensors",
    ),
}


@pytest.mark.parametrize("case", BAD_RUNS)
def test_a_damaged_run_is_an_error_that_names_the_file(case, finished, tmp_path):
    make, message = BAD_RUNS[case]
    runs = make(finished, tmp_path)
    with pytest.raises(UserError, match=message):
        sample.main(words(run=runs / "maskgit", n=1, steps=1, out=tmp_path / "o.png"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"label": 10}, UsageError, r"--label must be in \[0, 10\): got 10"),
        ({"steps": 17}, UsageError, "--steps must be from 1 to the number of tokens, 16: got 17"),
        ({"run": "nowhere"}, UserError, "nowhere/config.json: no such file"),
        ({"out": "/proc/x.png"}, UserError, "--out /proc/x.png: cannot be written"),
        ({"n": 0}, UsageError, "n must be at least 1: got 0"),
        ({"steps": 0}, UsageError, "steps must be at least 1: got 0"),
        ({"label": -1}, UsageError, "label must be at least 0: got -1"),
        ({"out": "x.gif"}, UsageError, r"out must be a file of \.png, .*: got 'x\.gif'"),
        ({"prompt": "x"}, UsageError, "--prompt: no such flag.* is a run of train.maskgit"),
    ],
)
def test_a_wrong_option_of_sample_is_an_error(options, error, message, finished, tmp_path):
    values = {"run": finished / "maskgit", "n": 1, "steps": 1, "out": tmp_path / "o.png"} | options
    with pytest.raises(error, match=message):
        sample.main(words(**values))


def test_a_tokenizer_cannot_be_guided(finished, tmp_path):
    with pytest.raises(UsageError, match=r"--guidance: no such flag.* is a run of train\.vqgan"):
        sample.main(words(run=finished / "vqgan", guidance=2.0, out=tmp_path / "o.png"))


def snapshot(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_another_config_in_the_folder_names_the_flags_and_leaves_all_alone(finished, capsys):
    before = snapshot(finished / "maskgit")
    with pytest.raises(UserError, match=r"holds a run with another config \(--seed was 0 and is 9\)"):
        maskgit.main(tiny(finished / "maskgit", seed=9, steps=2, tokenizer=str(finished / "vqgan")))
    with pytest.raises(UserError, match=r"--steps may grow from 2 to 9 only with --extend"):
        maskgit.main(tiny(finished / "maskgit", steps=9, tokenizer=str(finished / "vqgan")))
    with pytest.raises(UserError, match=r"holds a run of train.vqgan, not of train.maskgit"):
        maskgit.main(tiny(finished / "vqgan", tokenizer=str(finished / "vqgan")))
    assert snapshot(finished / "maskgit") == before


def test_a_folder_of_other_files_is_not_taken_for_a_run(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UserError, match=r"holds files but no config\.json"):
        maskgit.main(tiny(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_folder_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", Path("/proc/run")):
        with pytest.raises(UserError, match="cannot be written"):
            maskgit.main(tiny(folder))


@pytest.mark.parametrize(
    ("tokenizer", "message"),
    [
        (
            "nowhere",
            "--tokenizer nowhere: has no model.safetensors: give the folder of a finished train.vqgan run, a published tokenizer, or pixels",
        ),
        ("maskgit", "--tokenizer .*: is the model of a run of train.maskgit: give one of train.vqgan"),
    ],
)
def test_a_tokenizer_that_is_none_is_an_error(tokenizer, message, finished, tmp_path):
    where = str(finished / tokenizer) if tokenizer != "nowhere" else tokenizer
    with pytest.raises(UserError, match=message):
        maskgit.main(tiny(tmp_path / "r", tokenizer=where))


def test_a_tokenizer_of_another_image_size_is_an_error(finished, tmp_path):
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "d.npz", images=rng.integers(0, 255, (40, 12, 12, 1), dtype=np.uint8), labels=np.arange(40) % 2)
    from train.data import DataConfig

    with pytest.raises(UserError, match=r"is for images of \(8, 8, 1\) .*, but those of .* are \(12, 12, 1\)"):
        maskgit.main(
            tiny(tmp_path / "r", tokenizer=str(finished / "vqgan"), data=DataConfig(name=str(tmp_path / "d.npz")))
        )


def checkpointed(tmp_path, monkeypatch):
    """A run that stopped before its end, with checkpoints of steps 3 and 6."""
    from train.engine import fit

    config = tiny(tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(fit, "finish", lambda *_: 0)
        assert maskgit.main(config) == 0
    return config, tmp_path / "run" / "checkpoints"


def largest(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def test_a_damaged_checkpoint_is_passed_over_loudly_for_the_one_before(tmp_path, monkeypatch, capsys):
    _, checkpoints = checkpointed(tmp_path, monkeypatch)
    flip(largest(checkpoints / "6"))
    checkpointed(tmp_path, monkeypatch)
    output = capsys.readouterr()
    assert re.search(r"warning: checkpoint .*6 is damaged and passed over: file .* was altered", output.err)
    assert "from step 3" in output.out


def test_where_no_checkpoint_is_whole_the_error_says_so_and_nothing_is_lost(tmp_path, monkeypatch):
    config, checkpoints = checkpointed(tmp_path, monkeypatch)
    flip(largest(checkpoints / "6"))
    largest(checkpoints / "3").unlink()
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match="none of the 2 checkpoints is whole"):
        maskgit.main(config)
    assert snapshot(tmp_path) == before


def test_help_is_readable_and_needs_no_jax():
    code = (
        "import sys, runpy; sys.argv = ['maskgit', '--help']\n"
        "try: runpy.run_module('train.maskgit', run_name='__main__')\n"
        "except SystemExit as e: assert e.code == 0\n"
        "assert 'jax' not in sys.modules, 'jax was imported'"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    for flag in (
        "--preset",
        "--steps",
        "--run-dir",
        "--data.root",
        "--model.heads",
        "--decode.guidance",
        "--optim.learning-rate",
    ):
        assert flag in done.stdout


def test_a_config_survives_its_file():
    for recipe, module in RECIPES.items():
        for preset in module.PRESETS.values():
            again = configs.from_dict(module.Config, configs.to_dict(preset), recipe)
            assert again == preset


def test_an_edited_config_is_an_error():
    values = configs.to_dict(maskgit.PRESETS["digits"])
    with pytest.raises(UserError, match=r"config\.json: this is not a config of train\.maskgit"):
        configs.from_dict(maskgit.Config, values | {"steps": "many"}, "config.json")


def test_every_preset_has_the_sizes_of_its_tokenizer():
    assert maskgit.PRESETS.keys() <= vqgan.PRESETS.keys()


def test_compiling_for_a_tpu_names_the_extra_that_is_missing(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    refuse = lambda **_: (_ for _ in ()).throw(RuntimeError("JAX TPU support not installed"))
    monkeypatch.setattr("jax.experimental.topologies.get_topology_desc", refuse)
    assert command("maskgit", "--dry-run", "--compile-for", "v5e:2x4") == 1
    assert said(capsys) == 'error: --compile-for v5e:2x4: needs libtpu: pip install "eqxgen[tpu]"'


def test_an_update_that_does_not_fit_in_a_devices_memory_is_one_line(monkeypatch, capsys):
    class Lowered:
        def compile(self):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: required 16.68G exceeds available HBM\nHLO module: f")

    monkeypatch.setattr("train.engine.dryrun.lower", lambda *_: Lowered())
    assert command("maskgit", "--dry-run", "--model.depth", "1") == 1
    message = (
        "error: --dry-run: the update does not fit in the memory of a cpu: raise --accumulate, .*: RESOURCE_EXHAUSTED"
    )
    assert re.search(f"{message}: required 16.68G", said(capsys))


def test_a_dry_run_writes_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    missing = ("--dry-run", "--from", "nowhere.safetensors")
    assert command("maskgit", *missing) == 2
    assert "--from nowhere.safetensors: must be the folder of a run" in capsys.readouterr().err
    assert command("maskgit", "--dry-run", "--model.depth", "1") == 0
    output = capsys.readouterr().out
    for word in ("parameters", "compiled", "TFLOP per device", "GiB per device"):
        assert word in output
    assert command("maskgit", "--preset", "imagenet256", "--dry-run", "--compile-for", "cuda") == 0
    assert "lowered for cuda" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
