"""Checkpoints: what they hold, what they refuse, which they keep, and what a run survives."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from bench.reliability.common import is_state_of, state_of, template_of
from tests.full import FULL, full
from train._errors import UserError
from train.checkpoint import Checkpoints
from train.engine.recipes import RECIPES, load
from train.run.lock import locked

ROOT = Path(__file__).parents[2]
SIZE = 0.02


def saved(folder, *steps, keep=9, **options):
    """Checkpoints of these steps, on the disk."""
    checkpoints = Checkpoints(folder, keep, **options)
    for step in steps:
        checkpoints.save(step, state_of(step, SIZE))
    checkpoints.close()
    return folder


def restored(folder, **options):
    return Checkpoints(folder, 9, **options).restore(template_of(SIZE))


def test_shapes_are_enough_to_restore_every_bit_of_every_type(tmp_path):
    found = restored(saved(tmp_path, 1, 2))
    assert found.step == 2
    assert is_state_of(2, found.state, SIZE)
    assert jax.tree.structure(found.state) == jax.tree.structure(template_of(SIZE))


def test_there_is_nothing_to_restore_in_an_empty_folder(tmp_path):
    assert restored(tmp_path) is None


def test_the_newest_step_is_by_number_whatever_the_clock_said(tmp_path):
    saved(tmp_path, 1, 2)
    os.utime(tmp_path / "2", (0, 0))
    assert restored(tmp_path).step == 2


def test_what_is_no_array_comes_back_too(tmp_path):
    checkpoints = Checkpoints(tmp_path, 2)
    checkpoints.save(5, state_of(5, SIZE), position={"epoch": 3, "shards": [1, 2]})
    checkpoints.close()
    assert restored(tmp_path).position == {"epoch": 3, "shards": [1, 2]}


def test_an_empty_folder_of_a_later_step_is_passed_over_and_gone_after_the_next_save(tmp_path, capsys):
    saved(tmp_path, 1, 2)
    (tmp_path / "99").mkdir()
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.restore(template_of(SIZE)).step == 2
    assert "99 is damaged and passed over: file manifest.json is missing" in capsys.readouterr().err
    checkpoints.save(3, state_of(3, SIZE))
    checkpoints.close()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.isdigit()) == ["2", "3"]


@pytest.mark.parametrize(
    ("better", "scores", "kept"), [(min, [3, 1, 2, 5, 4], [2, 4, 5]), (max, [3, 1, 2, 5, 4], [4, 5]), (min, [], [4, 5])]
)
def test_the_best_is_kept_beside_the_newest_over_a_restart(tmp_path, better, scores, kept):
    for step in range(1, 6):
        checkpoints = Checkpoints(tmp_path, keep=2, best=better)
        checkpoints.save(step, state_of(step, SIZE), score=float(scores[step - 1]) if scores else None)
        checkpoints.close()
    assert checkpoints.steps() == kept


def test_a_start_clears_what_a_kill_left(tmp_path):
    saved(tmp_path, 1)
    for left in ("2.orbax-checkpoint-tmp", "deleted"):
        (tmp_path / left / "state").mkdir(parents=True)
    assert restored(tmp_path).step == 1
    assert sorted(path.name for path in tmp_path.iterdir() if path.name[0] in "2d") == []


def other(change):
    """A template with one thing changed."""
    template = template_of(SIZE)
    change(template)
    return template


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t["model"].update(scale=jax.ShapeDtypeStruct((8,), jnp.bfloat16)),
            r"model.scale must be bfloat16\[8\]: got bfloat16\[7\].*--model",
        ),
        (
            lambda t: t["model"].update(scale=jax.ShapeDtypeStruct((7,), jnp.int32)),
            r"model.scale must be int32\[7\]: got bfloat16\[7\]",
        ),
        (lambda t: t["model"].update(bias=t["model"].pop("scale")), r"array model.bias is missing: .*--model"),
        (lambda t: t["opt_state"][0].pop("nu"), r"array opt_state.0.nu\..* is not of this model; .*--optim.name"),
        (lambda t: t["ema"].pop("scale"), r"array ema.scale is not of this model; .*--ema"),
    ],
)
def test_another_state_is_an_error_that_names_the_leaf_and_the_flag(tmp_path, change, message):
    saved(tmp_path, 1)
    with pytest.raises(UserError, match=message):
        Checkpoints(tmp_path, 2).restore(other(change))


def test_other_versions_are_warned_of(tmp_path, capsys, monkeypatch):
    saved(tmp_path, 1)
    monkeypatch.setattr(jax, "__version__", "0.0.1")
    assert restored(tmp_path).step == 1
    assert f"was written by jax {jax.version.__version__}, and this is 0.0.1" in capsys.readouterr().err


def test_a_lock_is_gone_with_its_holder_and_leaves_nothing(tmp_path):
    with (
        locked(tmp_path),
        pytest.raises(UserError, match=f"is being written by process {os.getpid()} on "),
        locked(tmp_path),
    ):
        pass
    with locked(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_a_file_can_name_no_code_to_build_it(tmp_path):
    from safetensors.numpy import save_file

    save_file({}, tmp_path / "m.safetensors", metadata={"eqxgen": json.dumps({"recipe": "os"})})
    with pytest.raises(
        UserError,
        match=rf"m\.safetensors: expected the config of a run of {', '.join(RECIPES)}: got recipe 'os'",
    ):
        load(tmp_path / "m.safetensors")


def script(name, *flags, **env):
    """A script that measures a figure, in a process of its own; its results."""
    line = [sys.executable, "-m", f"bench.reliability.{name}", *map(str, flags)]
    done = subprocess.run(
        line, cwd=ROOT, env=os.environ | env, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "count", "flags"),
    [
        ("kill_in_save", 4 if FULL else 2, ()),
        pytest.param("corruption", 40, (), marks=full),
        pytest.param("resume_every_step", 4, ("--recipe", "vqgan"), marks=full),
        pytest.param("disk_full", 1, (), marks=full),
    ],
    ids=str,
)
def test_a_figure_is_reached_in_a_shortened_run(tmp_path, name, count, flags):
    if name == "disk_full" and not (shutil.which("cc") and sys.platform == "linux"):
        pytest.skip("the calls that fail are made by a library in C, and there is no compiler")
    script(name, "--folder", tmp_path / "work", "--out", tmp_path / "figure.json", "--count", count, *flags)
    assert json.loads((tmp_path / "figure.json").read_text())["reached"]


EIGHT = "--xla_force_host_platform_device_count=8"
RESHARD = """
import jax, jax.numpy as jnp, numpy as np, sys
from jax.sharding import NamedSharding, PartitionSpec as P
from pathlib import Path
from train.checkpoint import Checkpoints
from train.parallel import make_mesh
folder, whole = Path(sys.argv[1]), np.arange(64, dtype=np.float32).reshape(16, 4)
on = lambda text, devices, spec: NamedSharding(make_mesh(text, jax.devices()[:devices]), P(*spec))
checkpoints = Checkpoints(folder, 2)
checkpoints.save(1, {"w": jax.device_put(whole, on("fsdp=8", 8, ("fsdp",)))})
checkpoints.wait()
split = ("fsdp",)
places = [("", 1, ()), ("fsdp=2", 2, split), ("data=4", 4, ()), ("data=2,fsdp=4", 8, split), ("fsdp=2,model=4", 8, ("fsdp", "model"))]
for text, devices, spec in places:
    place = on(text, devices, spec)
    found = checkpoints.restore({"w": jax.ShapeDtypeStruct((16, 4), jnp.float32, sharding=place)}).state["w"]
    assert found.sharding == place and np.array_equal(np.asarray(found), whole), text
checkpoints.close()
"""


def test_a_checkpoint_of_eight_devices_restores_on_any_number_and_mesh(tmp_path):
    env = os.environ | {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} {EIGHT}"}
    line = [sys.executable, "-c", RESHARD, str(tmp_path)]
    done = subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
