"""A new user's first hours, and kernels of other devices: rows 23 to 46.

Rows of the metadata and of documents are read off the checkout; `nox -s wheel` runs what is installed.
"""

import importlib
import inspect
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np

from .checks import IMAGE_MODEL, Found, check, command, last, outcome, shared, text_run, write_pictures

HIDDEN = "import sys, runpy; sys.modules[{0!r}] = None; sys.argv = {1!r}; runpy.run_module({2!r}, run_name='__main__')"
"""A command without a package that is installed."""


def project() -> dict:
    """The metadata of the checkout."""
    return tomllib.loads((checkout() / "pyproject.toml").read_text())["project"]


def checkout() -> Path:
    return Path(os.environ["EQXGEN_CHECKOUT"])


@check(23, "the wheel", "a console command `eqxgen RECIPE`, --version, a list of recipes, and extras that exist")
def console(folder: Path) -> Found:
    scripts, extras = project().get("scripts", {}), project()["optional-dependencies"]
    status, output = command("eqxgen", "--version")
    wanted = {"train", "text", "cuda", "tpu", "hub", "docs"}
    held = "eqxgen" in scripts and not status and wanted <= set(extras)
    return held, f"scripts {sorted(scripts)}, extras {sorted(extras)}; python -m eqxgen --version: {last(output)}"


@check(24, "types", "py.typed is there; a type checker sees signature and docs of an op")
def typed(folder: Path) -> Found:
    marked = (checkout() / "eqxgen" / "py.typed").exists()
    static = "importlib" not in (checkout() / "eqxgen" / "ops.py").read_text()
    return marked and static, f"py.typed: {marked}; ops imported by a statement that a checker reads: {static}"


@check(25, "names of the package", "submodules are lazy, `dir` lists them and models are importable by name")
def lazy(folder: Path) -> Found:
    import eqxgen

    wrong = [name for name in ("nn", "ops", "models") if not hasattr(eqxgen, name)]
    names = dir(eqxgen)
    wrong += ["TYPE_CHECKING in dir()"] * ("TYPE_CHECKING" in names) + ["no RNG in dir()"] * ("RNG" not in names)
    wrong += ["no GPT in eqxgen.models"] * (not hasattr(importlib.import_module("eqxgen.models"), "GPT"))
    return not wrong, f"wrong or missing: {', '.join(wrong)}" if wrong else "all names are there"


@check(
    26, "silence of a judge", "evaluations are flags, `none` among them, and every phase has a line with its seconds"
)
def phases(folder: Path) -> Found:
    words = [*IMAGE_MODEL, "--steps", "2", "--sample-every", "0", "--decode.steps", "2"]
    status, output = command("train.maskgit", *words, "--evals", "none", "--run-dir", str(folder / "run"))
    if status:
        return False, f"--evals none: status {status}, {last(output)}"
    summary = shared(folder, "images") / "summary.json"
    timed = "judge_seconds" in json.loads(summary.read_text())
    return not status and timed, f"--evals none: status {status}, {last(output)}; the judge's seconds are kept: {timed}"


@check(27, "tracebacks of missing packages and paths", "one line; an existing folder is taken by its bare name")
def bare(folder: Path) -> Found:
    write_pictures(folder / "pets", [f"{label}/{i}.png" for label in "ab" for i in range(6)])
    status, output = command("train.data", "prepare", "pets", "OUT")
    words = [
        "gpt",
        "--data.tokenizer",
        "bpe-300",
        "--steps",
        "2",
        "--data.name",
        str(shared(folder, "text").parent / "text.txt"),
    ]
    line = [sys.executable, "-c", HIDDEN.format("tokenizers", words, "train.gpt")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=600, check=False)
    lines = len((done.stdout + done.stderr).splitlines())
    held = not status and "Traceback" not in done.stderr and bool(done.returncode)
    return held, f"prepare pets OUT: status {status}, {last(output)[:90]}; without tokenizers: {lines} lines"


@check(28, "batches without vmap", "the error names the shape and jax.vmap, of layers, models and the summary")
def batches(folder: Path) -> Found:
    import jax.numpy as jnp
    import jax.random as jr

    from eqxgen.configs import GPTConfig
    from eqxgen.models.gpt import GPT
    from eqxgen.nn import SelfAttention

    model = GPT(50, GPTConfig(dim=16, depth=1, heads=2, context=32), key=jr.key(0))
    calls = {"SelfAttention": lambda: SelfAttention(8, 2, key=jr.key(0))(jnp.ones((2, 5, 8)))}
    calls["GPT"] = lambda: model(jnp.zeros((2, 5), jnp.int32))
    wrong = []
    for name, call in calls.items():
        with outcome() as tried:
            call()
        wrong += [f"{name}: {tried.error[:100]}"] * ("jax.vmap" not in tried.error)
    return not wrong, "; ".join(wrong) or "both errors have the shape and the hint"


@check(29, "a best metric mistyped", "--keep-best max:foo is refused before the first step, of images too")
def best(folder: Path) -> Found:
    words = [*IMAGE_MODEL, "--steps", "2", "--sample-every", "0", "--run-dir", str(folder / "run")]
    status, output = command("train.maskgit", *words, "--keep-best", "max:foo")
    started = (folder / "run" / "metrics.jsonl").exists()
    return bool(status) and not started, f"status {status}, {'after' if started else 'before'} step 1: {last(output)}"


@check(30, "going on", "--extend makes a run longer, --from starts from weights, other data have a folder of their own")
def going_on(folder: Path) -> Found:
    text_run(folder, "--optim.warmup", "2", steps=2)
    status, output = text_run(folder, "--optim.warmup", "2", "--extend", steps=4)
    started, said = text_run(folder, "--optim.warmup", "2", "--from", str(folder / "run"), steps=2, name="other")
    return (
        not status and not started,
        f"--extend: status {status}, {last(output)}; --from: status {started}, {last(said)}",
    )


@check(31, "--help", "the short help has at most 100 lines with the presets; all flags are under --help-all")
def short_help(folder: Path) -> Found:
    _, output = command("train.maskgit", "--help")
    whole, _ = command("train.maskgit", "--help-all")
    lines, presets = len(output.splitlines()), "imagenet256" in output and "--lr" in output
    return lines <= 100 and presets and not whole, f"{lines} lines; --help-all: status {whole}; aliases: {presets}"


@check(32, "broken pictures", "all are named at once; --data.skip-broken leaves them out")
def broken(folder: Path) -> Found:
    from train.data import DataConfig, load

    path = Path(write_pictures(folder / "set", [f"{label}/{i}.png" for label in "ab" for i in range(6)]))
    for name in ("a/one.png", "b/two.png"):
        (path / name).write_bytes(b"\x89PNG\r\n\x1a\nxx")
    with outcome() as tried:
        load(DataConfig(name=str(path)))
    named = all(name in tried.error for name in ("one.png", "two.png"))
    skips = "skip_broken" in inspect.signature(DataConfig).parameters
    return named and skips, f"{tried.error.replace(str(folder), 'FOLDER')[:170]}; skip_broken: {skips}"


@check(33, "--compile-for without its package", "the error names the extra")
def extra(folder: Path) -> Found:
    words = ["maskgit", "--dry-run", "--compile-for", "v5e:2x4"]
    line = [sys.executable, "-c", HIDDEN.format("libtpu", words, "train.maskgit")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=600, check=False)
    said = last(done.stderr)
    return bool(done.returncode) and "eqxgen[tpu]" in said, said


@check(34, "an update skipped because of NaN", "the line of the step and the summary say so")
def skipped(folder: Path) -> Found:
    words = ["--optim.learning-rate", "1e30", "--max-skips", "99", "--optim.warmup", "0"]
    _, output = text_run(folder, *words, steps=6)
    summary = folder / "run" / "summary.json"
    kept = summary.exists() and json.loads(summary.read_text()).get("skipped", 0) > 0
    lines = [line for line in output.splitlines() if "skip" in line]
    return bool(kept and lines), f"lines with skips: {len(lines)}; in the summary: {kept}; {last(output)[:90]}"


@check(35, "model.safetensors", "its mode is the umask's")
def mode(folder: Path) -> Found:
    umask = os.umask(0o022)
    os.umask(umask)
    found = (shared(folder, "text") / "model.safetensors").stat().st_mode & 0o777
    return found == 0o666 & ~umask, f"mode {found:o} with umask {umask:o}"


@check(36, "a config again with fewer steps", "the warm-up is cut, as the preset's is")
def fewer(folder: Path) -> Found:
    config = folder / "config.json"
    words = [*IMAGE_MODEL, "--dry-run"]
    run = json.loads((shared(folder, "images") / "config.json").read_text())
    run["config"]["steps"], run["config"]["optim"]["warmup"] = 1000, 50
    config.write_text(json.dumps(run))
    status, output = command("train.maskgit", *words, "--config", str(config), "--steps", "10", "--run-dir", "x")
    return not status, f"status {status}: {last(output)}"


@check(37, "rank promotion of the suite", "CONTRIBUTING names the setting")
def promotion(folder: Path) -> Found:
    found = "rank promotion" in (checkout() / "CONTRIBUTING.md").read_text()
    return found, f"CONTRIBUTING.md {'names' if found else 'does not name'} it"


@check(
    38, "a contributor's first layer, model or recipe", "skeletons by `python -m tests.new`, `nox -s dev`, protocols"
)
def skeleton(folder: Path) -> Found:
    found = (checkout() / "tests" / "new" / "__main__.py").exists()
    session = "def dev(" in (checkout() / "noxfile.py").read_text()
    return found and session, f"python -m tests.new: {found}; nox -s dev: {session}"


@check(39, "samples as data", "a folder of single files and an .npz of images and labels")
def samples(folder: Path) -> Found:
    run, found = shared(folder, "images"), {}
    for out in ("pictures/", "samples.npz"):
        words = ["--run", run, "--n", "3", "--steps", "2", "--out", f"{folder}/{out}"]
        found[out], output = command("train.sample", *words)
    files = len(list((folder / "pictures").glob("*.png"))) if (folder / "pictures").is_dir() else 0
    held = files == 3 and (folder / "samples.npz").exists() and "images" in np.load(folder / "samples.npz")
    return held, f"status by --out: {found}; {files} pictures; {last(output)[:90]}"


@check(40, "TensorBoard", "it has evaluations, texts or pictures, and hyperparameters")
def board(folder: Path) -> Found:
    data = b"".join(path.read_bytes() for path in (shared(folder, "text") / "tensorboard").glob("events*"))
    tags = {"hyperparameters": b"_hparams_", "texts": b"text_summary", "validation": b"val_loss"}
    missing = [name for name, tag in tags.items() if tag not in data]
    return not missing, f"missing: {', '.join(missing)}" if missing else "all three are there"


@check(41, "names of others", "a table from equinox.nn in the documents")
def names(folder: Path) -> Found:
    pages = [path.name for path in (checkout() / "docs").glob("*.md") if "From `equinox.nn`" in path.read_text()]
    return bool(pages), f"pages with the table: {pages}"


@check(42, "Python 3.11 with a Hopper GPU", "the reason names Python 3.12")
def hopper(folder: Path) -> Found:
    import jax
    import jax.numpy as jnp

    from eqxgen.ops import dot_product_attention

    if sys.version_info >= (3, 12) or jax.__version_info__ >= (0, 11):
        return True, "not to be seen: it needs Python 3.11 and jax 0.10"
    q = jnp.ones((1, 8, 2, 16), jnp.bfloat16)
    with outcome(
        (
            NotImplementedError,
            ValueError,
        )
    ) as tried:
        dot_product_attention(q, q, q, implementation="mosaic_gpu")
    return "Python 3.12" in tried.error, tried.error[:200]


@check(43, "metadata", "URLs, authors, a citation, a version in the changelog; no broken links on an index page")
def metadata(folder: Path) -> Found:
    import re

    missing = [name for name in ("authors", "classifiers", "keywords") if name not in project()]
    missing += ["CITATION.cff"] * (not (checkout() / "CITATION.cff").exists())
    log = (checkout() / "CHANGELOG.md").read_text()
    missing += ["a version in CHANGELOG.md"] * (re.search(r"^## \[?\d+\.\d+", log, re.M) is None)
    return not missing, f"missing: {', '.join(missing)}" if missing else "complete"


@check(44, "train.data check of what is no prepared set", "the kind of the file is said, and no bytes pass for ids")
def looked_at(folder: Path) -> Found:
    np.savez(folder / "set.npz", images=np.zeros((20, 8, 8, 3), np.uint8), labels=np.arange(20) % 2)
    status, output = command("train.data", "check", str(folder / "set.npz"))
    return not status and "npz" in output and "ids" not in output, f"status {status}: {last(output)}"


@check(45, "padding that equals a segment", "NaN in keys that no query sees reaches no gradient of the TPU kernels")
def segments(folder: Path) -> Found:
    os.environ["EQXGEN_INTERPRET"] = "1"
    import jax
    import jax.numpy as jnp

    from eqxgen.ops import dot_product_attention, masks

    keys = jax.random.split(jax.random.key(0), 3)
    q, k, v = (jax.random.normal(key, (2, n, h, 16)) for key, n, h in zip(keys, (37, 41, 41), (4, 2, 2)))
    dead = jnp.arange(41)[None] >= jnp.array([17, 29])[:, None]
    spoilt = [jnp.where(dead[..., None, None], jnp.nan, x) for x in (k, v)]
    mask = masks.Segments(jnp.ones((2, 37), jnp.int32), jnp.where(dead, 0, 1))
    total = lambda *x: jnp.sum(dot_product_attention(*x, mask=mask, implementation="mosaic_tpu") ** 2)
    finite = [bool(jnp.isfinite(x).all()) for x in jax.grad(total, (0, 1, 2))(q, *spoilt)]
    return all(finite), f"finite in interpret mode: dq {finite[0]}, dk {finite[1]}, dv {finite[2]}"


@check(46, "bfloat16 gradients of large keys on TPU", "the documents have the measured error")
def large_keys(folder: Path) -> Found:
    text = (checkout() / "docs" / "attention.md").read_text()
    found = "rounds the gradients of the logits" in text
    return found, f"docs/attention.md {'has' if found else 'has not'} the measured error of the TPU kernel"
