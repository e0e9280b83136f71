"""The help of every command: short, immediate, complete on demand, with examples that can be pasted."""

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from train import evaluate
from train.config import usage
from train.config.flags import read
from train.config.options import options
from train.config.usage import documentation
from train.data import __main__ as data
from train.engine.recipes import RECIPES, named
from train.tasks.facts import TextFacts, TextPairFacts

ROOT = Path(__file__).parents[2]
MODULES = {name: f"train.{name}" for name in RECIPES}
COMMANDS = [
    *MODULES.values(),
    "train.sample",
    "train.search",
    "train.evaluate",
    "train.convert",
    "train.doctor",
    "train.data",
]
QUIET = """
import sys, runpy
sys.argv = [MODULE, *WORDS]
try:
    runpy.run_module(MODULE, run_name="__main__", alter_sys=True)
except SystemExit as stop:
    assert stop.code == 0, stop.code
assert not {"jax", "numpy"} & set(sys.modules), "a heavy module was imported"
"""


def said(module, *words):
    """Output of a command in a process of its own, which must import neither jax nor NumPy."""
    code = QUIET.replace("MODULE", repr(module)).replace("WORDS", repr(words))
    line = [sys.executable, "-c", code]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.parametrize("module", COMMANDS)
def test_help_needs_neither_jax_nor_numpy(module):
    text = said(module, "--help")
    assert text.startswith(f"usage: python -m {module}")
    presets = re.search(r"Presets, by.*?\n\n", text, re.DOTALL)
    assert len(text.replace(presets[0] if presets else "", "").splitlines()) < 82


def test_help_shows_the_first_flags_and_the_presets_and_help_all_every_flag():
    short, long = said("train.maskgit", "--help"), said("train.maskgit", "--help-all")
    first = ["--preset", "--data.name", "--steps", "--bs, --batch-size", "--lr, --optim.learning-rate", "--mesh"]
    for flag in (*first, "--run-dir", "--seed", "--model.dim", "--decode.guidance", "--help-all", "digits", "0.971"):
        assert flag in short
    assert "--optim.beta1" not in short
    maskgit = importlib.import_module("train.maskgit")
    for option in options(maskgit.Config).values():
        assert option.name.replace("_", "-").rpartition(".")[2] in long
    assert "--[no-]strict" in long
    assert "--data.augment.[no-]flip" in long
    assert "[320]" in short, "the preset's value"


@pytest.mark.parametrize("module", MODULES.values())
def test_every_flag_has_its_text(module):
    config = importlib.import_module(module).Config
    texts = documentation(config)
    assert [name for name in options(config) if not texts.get(name)] == []


def examples(module):
    text = importlib.import_module(f"{module}.__main__" if module == "train.data" else module).__doc__ or ""
    return [line for line in text.splitlines() if line.startswith("  ") and "python -m" in line]


@pytest.mark.parametrize("module", COMMANDS)
def test_every_example_can_be_pasted(module):
    assert examples(module)
    for line in examples(module):
        _, _, name, *words = shlex.split(line, comments=True)
        if name == "train.data":
            kind = data.COMMANDS[words.pop(0)]
        elif name in ("train.sample", "train.evaluate"):
            recipe = importlib.import_module(MODULES[re.findall(r"runs/(\w+)-", line)[0]]).RECIPE
            kind = recipe.sample if name == "train.sample" else evaluate.form_of(recipe)
        else:
            module = importlib.import_module(name)
            kind = module.Options if name == "train.search" else module.Config
        read(words, options(kind))


def parameters(recipe, preset):
    """Millions of parameters of a preset's model."""
    import equinox as eqx
    import jax
    import jax.random as jr

    found = named(recipe)
    if recipe in ("gpt", "rnn"):
        facts = TextFacts(50257 if preset.steps > 10_000 else 65, 64)
    elif recipe == "t5":
        facts = TextPairFacts(preset.data.vocab or 98, 8, 8)
    else:
        facts = found.on_paper(preset)
    model = eqx.filter_eval_shape(found.model(preset, facts), jr.key(0))
    is_float = lambda x: isinstance(x, jax.ShapeDtypeStruct) and jax.numpy.issubdtype(x.dtype, jax.numpy.floating)
    return sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(model, is_float))) / 1e6


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_preset_has_a_line_with_its_size(recipe):
    module = importlib.import_module(MODULES[recipe])
    assert module.ABOUT.keys() == module.PRESETS.keys()
    for name, line in module.ABOUT.items():
        size = line.partition(" M parameters; ")[0].replace(",", "")
        places = len(size.partition(".")[2])
        assert f"{parameters(recipe, module.PRESETS[name]):.{places}f}" == size, name


def test_an_installed_command_shows_its_own_name(monkeypatch):
    monkeypatch.setattr(usage, "PREFIX", "eqxgen ")
    maskgit = importlib.import_module("train.maskgit")
    text = usage.Usage("maskgit", maskgit.__doc__ or "", maskgit.Config).text(every=False)
    assert text.startswith("usage: eqxgen maskgit")
    assert "\n  eqxgen vqgan --preset mnist " in text
    assert "python -m" not in text


def test_the_console_command_shows_the_same_help():
    code = "import sys; from eqxgen._command import main; sys.argv[1:] = ['maskgit', '--help']; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == said("train.maskgit", "--help")


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("--optim.lea", "--optim.learning-rate"),
        ("--optim.name sch", "schedule_free"),
        ("--preset img", ""),
        ("--preset image", "imagenet256"),
        ("--run-dir run", ""),
    ],
)
def test_bash_completes_flags_and_choices(typed, found):
    words = [sys.executable, "-m", "train.maskgit", *typed.split()]
    script = said("train.maskgit", "--print-completion", "bash")
    script += f"\nCOMP_WORDS=({shlex.join(words)}); COMP_CWORD={len(words) - 1}; _eqxgen; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == found, done.stderr
