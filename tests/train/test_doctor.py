"""The doctor's report, and the cache of compiled programs in it."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.devices import environment
from train import doctor
from train._errors import UserError
from train.engine import compile_cache as compilecache
from train.parallel import AXES
from train.report.meshes import mesh_choices

ROOT = Path(__file__).parents[2]


def test_it_names_versions_devices_choices_with_reasons_folders_and_clashes(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "jax_cannot_start", lambda: None)
    assert doctor.main(doctor.Config(batch=1, seq=64, heads=2, head_dim=16)) == 0
    text = capsys.readouterr().out
    for title in ("versions", "devices", "operations", "folders", "clashes"):
        assert f"{title}\n  " in text
    assert f"jax                {jax.__version__}" in text
    assert "dot_product_attention of bfloat16[1, 64, 2, 16]" in text
    assert "not as cudnn: it runs on NVIDIA GPUs only, and this program is compiled for cpu" in text
    assert "layer_norm of bfloat16[64, 32]" in text
    assert "GiB free" in text
    assert not list(tmp_path.iterdir())


def test_on_several_devices_it_names_what_runs_on_each_kind_of_mesh_axes():
    line = [sys.executable, "-m", "train.doctor", "--seq", "16", "--heads", "2", "--head-dim", "8", "--mesh", "model=2"]
    done = subprocess.run(line, cwd=ROOT, env=environment(4), capture_output=True, text=True, timeout=120, check=False)
    for op in ("dot_product_attention of bfloat16[16, 16, 2, 8]", "layer_norm of bfloat16[16, 16, 16]"):
        found = done.stdout.partition(f"{op} on data=2, model=2\n")[2].splitlines()[:4]
        kinds = ("explicit", "auto", "manual", "manual data and auto model")
        assert found == [f"    {kind} axes: xla" for kind in kinds]
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1] * 2).reshape(1, 1, 1, 1, 1, 2), AXES)
    with pytest.raises(UserError, match=r"^--heads must be a multiple of --mesh model: got 3 heads and model=2$"):
        mesh_choices(doctor.Config(heads=3), mesh)


def test_a_foreign_package_and_switches_that_hurt_are_clashes(monkeypatch):
    assert doctor.found_clashes() == []
    monkeypatch.setenv("JAX_DISABLE_JIT", "1")
    monkeypatch.setenv("JAX_ENABLE_X64", "true")
    monkeypatch.setattr(
        doctor.importlib.util,
        "find_spec",
        lambda name: type("Spec", (), {"origin": "/site-packages/kernels/__init__.py"}),
    )
    found = " ".join(doctor.found_clashes())
    for words in ("another package named kernels, /site-packages", "JAX_DISABLE_JIT is set", "JAX_ENABLE_X64 is set"):
        assert words in found


def test_a_variable_that_jax_dies_of_is_named_with_the_reason():
    """Number 100 of the list of bad inputs: XLA ends every process that is given a flag it does not know."""
    env = os.environ | {"XLA_FLAGS": "--xla_no_such_flag=1", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-m", "train.doctor"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    last = done.stdout.strip().splitlines()[-1]
    assert "JAX does not start with XLA_FLAGS=--xla_no_such_flag=1" in last
    assert "Unknown flag" in last
    assert "correct or unset them" in last


def test_compiled_programs_are_kept_in_the_users_cache_unless_told_otherwise(tmp_path, monkeypatch):
    updates = {}
    monkeypatch.setattr(jax.config, "update", updates.__setitem__)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "theirs"))
    assert compilecache.use_cache(None) == tmp_path / "theirs"
    assert updates == {}
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert compilecache.use_cache(None) == tmp_path / "eqxgen" / "compiled"
    assert updates["jax_compilation_cache_dir"] == str(tmp_path / "eqxgen" / "compiled")
    assert compilecache.use_cache(str(tmp_path / "mine")) == tmp_path / "mine"
    assert (tmp_path / "mine").is_dir()
    assert compilecache.use_cache("off") is None
    assert updates["jax_enable_compilation_cache"] is False


def test_a_cache_that_cannot_be_written_stops_only_who_asked_for_it(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--compile-cache .*cannot be written: .*: give another folder, or off"):
        compilecache.use_cache(str(tmp_path / "file" / "below"))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert compilecache.use_cache(None) is None


def test_a_second_process_takes_its_programs_from_the_cache(tmp_path):
    code = (
        "import sys, jax, jax.monitoring\n"
        "from train.engine.compile_cache import use_cache\n"
        "hits = []\n"
        "jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if event.endswith('cache_hits') "
        "else None)\n"
        "use_cache(sys.argv[1])\n"
        "jax.jit(lambda x: jax.numpy.tanh(x) * 3)(jax.numpy.ones(5)).block_until_ready()\n"
        "print(len(hits))"
    )
    env = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"} | {
        "PYTHONPATH": str(ROOT)
    }
    line = [sys.executable, "-c", code, str(tmp_path / "cache")]
    counts = [
        int(subprocess.run(line, env=env, capture_output=True, text=True, timeout=120, check=True).stdout)
        for _ in range(2)
    ]
    assert counts[0] == 0
    assert counts[1] >= 1
