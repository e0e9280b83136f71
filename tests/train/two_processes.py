"""Run by test_signals.py, one of two processes: checkpoints of arrays that are split over both, one lock, one step to
stop at.
"""

import os
import signal
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from train._errors import UserError
from train.checkpoint import Checkpoints
from train.config.base import TrainConfig
from train.parallel import make_mesh, rules
from train.parallel.processes import from_first, is_first, on_host, start
from train.run.folder import RunFolder
from train.run.signals import StopRequest
from train.run.weights import load_model, save_model


def main(folder: Path, port: str, number: int) -> None:
    start(f"localhost:{port}", 2, number)
    whole = np.arange(64, dtype=np.float32).reshape(16, 4)
    place = NamedSharding(make_mesh("fsdp=4"), PartitionSpec("fsdp"))
    split = jax.make_array_from_callback(whole.shape, place, lambda index: whole[index])
    with RunFolder.open(TrainConfig(run_dir=str(folder / "run")), "maskgit") as opened:
        run = opened.path
        checkpoints = Checkpoints(run / "checkpoints", keep=1)
        for step in (1, 2):
            checkpoints.save(step, {"w": split * step}, position={"at": step})
        checkpoints.wait()
        found = checkpoints.restore({"w": jax.ShapeDtypeStruct(whole.shape, jnp.float32, sharding=place)})
        assert (found.step, found.position, checkpoints.steps()) == (2, {"at": 2}, [2])
        assert np.array_equal(on_host(found.state["w"]), 2 * whole)
        save_model(run / "model.safetensors", {"w": split}, {"size": 16})
        # Damage that only the first process looks for is an error of both.
        if is_first():
            (run / "checkpoints" / "2" / "state" / "w" / "0.0").unlink()
        assert "is damaged: file state/w/0.0 is missing, of tensor w" in raised(
            lambda: Checkpoints(run / "checkpoints", 1, strict=True).restore(found.state)
        )
        checkpoints.close()
    model, _ = load_model(run / "model.safetensors", lambda description: {"w": jnp.zeros((description["size"], 4))})
    assert np.array_equal(np.asarray(model["w"]), whole)
    assert raised(lambda: from_first(fail)) == "it cannot be"
    mine = {"up": jax.device_put(np.arange(1024, dtype=np.float32).reshape(4, 256), jax.local_devices()[1])}
    placed = rules.place(mine | {"key": jax.random.key(3)}, make_mesh("fsdp=4"))
    assert np.array_equal(on_host(placed["up"]), mine["up"])
    assert np.array_equal(on_host(jax.random.key_data(placed["key"])), jax.random.key_data(jax.random.key(3)))
    print("stopped at", stop_step(number))


def stop_step(number: int) -> int:
    """The step at which a process stops of which only the second gets a signal, at its third step."""
    with StopRequest() as stop:
        for step in range(1, 100):
            if number == 1 and step == 3:
                os.kill(os.getpid(), signal.SIGTERM)
                while stop.received is None:
                    time.sleep(0.001)
            if stop.agreed(step):
                assert stop.status == 143
                return step
    raise AssertionError("nobody stopped")


def fail() -> None:
    raise UserError("it cannot be")


def raised(function) -> str:
    try:
        function()
    except UserError as error:
        return str(error)
    raise AssertionError("nothing was raised")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
