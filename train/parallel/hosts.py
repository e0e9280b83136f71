"""Several processes: how they find each other, and what one may do for all."""

import json
import os
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from train.errors import UsageError, UserError

Tree = TypeVar("Tree", bound=PyTree)
Json = TypeVar("Json")

# What says that this process is one of several, which JAX then finds by itself; the number of processes where it is said.
SURROUNDINGS = {
    "SLURM_STEP_NUM_TASKS": "SLURM",
    "OMPI_COMM_WORLD_SIZE": "Open MPI",
    "JAX_NUM_PROCESSES": "JAX",
}


def start(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Joins the other processes of a run, if there are any. To be called once, before anything asks for a device.

    Flags come first; without them, TPU pods, SLURM, Open MPI and JAX's own variables are recognised by `jax.distributed.initialize`.

    Args:
        coordinator: `host:port` of process 0.
        num_processes: how many there are.
        process_id: which of them this is, from 0.

    Raises:
        UsageError: the flags do not go together.
        UserError: the others cannot be reached.
    """
    given = {"--coordinator": coordinator, "--num-processes": num_processes, "--process-id": process_id}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        if not surrounded():
            return
    elif missing:
        raise UsageError(f"--coordinator, --num-processes and --process-id go together: {', '.join(missing)} is missing")
    else:
        _check(coordinator or "", num_processes or 0, process_id or 0)
    if jax.distributed.is_initialized():
        return
    # The service swallows SIGTERM, and knows neither SIGINT nor a second signal: train.signals listens to both and agrees on a step.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except (RuntimeError, ValueError) as error:
        where = f"--coordinator {coordinator}" if coordinator else "the processes of this job"
        raise UserError(f"{where}: the processes did not find each other: {str(error).splitlines()[0]}") from None


def _check(coordinator: str, num_processes: int, process_id: int) -> None:
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise UsageError(f"--coordinator must be HOST:PORT of process 0: got {coordinator!r}; write --coordinator localhost:12345")
    if num_processes < 1:
        raise UsageError(f"--num-processes must be at least 1: got {num_processes}")
    if not 0 <= process_id < num_processes:
        raise UsageError(f"--process-id must be from 0 to --num-processes - 1, {num_processes - 1}: got {process_id}")


def surrounded() -> bool:
    """Whether the environment says that this process is one of several."""
    if any(os.environ.get(name, "").isdigit() and int(os.environ[name]) > 1 for name in SURROUNDINGS):
        return True
    return "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")


def is_main() -> bool:
    """Whether this is the process that writes files and speaks."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until every process has come here. Nothing to wait for where there is one."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def from_main(function: Callable[[], Json]) -> Json:
    """What `function` gives in the main process, in every process; it runs there alone, and no process goes on before it has ended.

    Args:
        function: gives what JSON can hold.

    Raises:
        UserError: what it raised in the main process, in every process.
    """
    if jax.process_count() == 1:
        return function()
    value, error, status = json.loads(_broadcast(_answer(function) if is_main() else b""))
    if error is not None:
        failure = UserError(error)
        failure.status = status
        raise failure
    return value


def _answer(function: Callable[[], object]) -> bytes:
    try:
        return json.dumps([function(), None, 0]).encode()
    except UserError as error:
        return json.dumps([None, str(error), error.status]).encode()


def _broadcast(data: bytes) -> bytes:
    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
    padded = np.frombuffer(data.ljust(length), np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes()


def whole(tree: Tree) -> Tree:
    """The tree with every array whole and in the memory of this host; every process must call it."""

    def fetch(leaf: object) -> object:
        if not isinstance(leaf, jax.Array):
            return leaf
        if leaf.is_fully_addressable or leaf.is_fully_replicated:
            return jax.device_get(leaf)
        return multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(fetch, tree)
