"""Several processes: coordination, work of the first alone, arrays on several processes."""

import json
import os
from collections.abc import Callable
from typing import TypeVar

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from .._errors import UserError

Json = TypeVar("Json")


# What says that this process is one of several. JAX finds the others by the first two; the third it does not read, and
# asking it then is an error, where going on would train a run in each process.
SURROUNDINGS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "JAX_NUM_PROCESSES")

PATIENCE = 7 * 24 * 3600
"""Seconds for which a process that is done waits for the others. The first still draws, evaluates and writes for all of
them, which may take hours, and JAX's own five minutes would end them all as failed. One that dies is noticed by its
missing heartbeats."""


def start(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Joins the other processes of a run, if there are any. To be called once, before anything asks for a device.

    Without arguments, TPU pods, SLURM and Open MPI are recognised by `jax.distributed.initialize`.

    Args:
        coordinator: `host:port` of process 0.
        num_processes: how many there are.
        process_id: which of them this is, from 0.

    Raises:
        UserError: the others cannot be reached.
    """
    if (coordinator is None and not surrounded()) or jax.distributed.is_initialized():
        return
    # Its service swallows SIGTERM, and knows neither SIGINT nor a second signal: train.run.signals listens to both and
    # agrees on a step.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id, shutdown_timeout_seconds=PATIENCE)
    except (RuntimeError, ValueError) as error:
        where = f"--coordinator {coordinator}" if coordinator else "the processes of this job"
        raise UserError(f"{where}: the processes did not find each other: {str(error).splitlines()[0]}") from None


def surrounded() -> bool:
    """True where the environment names several processes."""
    if any(os.environ.get(name, "").isdigit() and int(os.environ[name]) > 1 for name in SURROUNDINGS):
        return True
    return "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")


def is_first() -> bool:
    """True in the one process that writes shared files."""
    return jax.process_index() == 0


def from_first(function: Callable[[], Json]) -> Json:
    """The first process's result of `function`, in every process; it runs in the first alone, and no process goes on
    before it ended.

    Args:
        function: gives what JSON can hold.

    Raises:
        UserError: what it raised in the first process, in every process.
    """
    if jax.process_count() == 1:
        return function()
    answer = _broadcast(_answer(function) if is_first() else b"")
    value, error, status = json.loads(answer)
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
    from jax.experimental import multihost_utils

    length = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
    padded = np.frombuffer(data.ljust(length), np.uint8)
    return np.asarray(multihost_utils.broadcast_one_to_all(padded)).tobytes()


def arrays_from_first(tree: PyTree) -> PyTree:
    """The tree with the arrays of the first process, whole in every process; all have the same shapes."""
    if jax.process_count() == 1:
        return tree
    from jax.experimental import multihost_utils

    arrays, rest = eqx.partition(tree, eqx.is_array)
    arrays = multihost_utils.broadcast_one_to_all(arrays)
    return eqx.combine(jax.tree.map(jax.numpy.asarray, arrays), rest)


def from_each(data: bytes) -> list[bytes]:
    """The bytes that each process gives, in every process, in the order of their numbers."""
    if jax.process_count() == 1:
        return [data]
    from jax.experimental import multihost_utils

    lengths = np.asarray(multihost_utils.process_allgather(np.int32(len(data))))
    padded = np.frombuffer(data.ljust(int(lengths.max())), np.uint8)
    rows = np.asarray(multihost_utils.process_allgather(padded))
    return [row[:length].tobytes() for row, length in zip(rows, lengths)]


def whole(tree: PyTree) -> PyTree:
    """The tree with every array whole on the host, however it is split over devices and processes; every process must
    call it.
    """
    return jax.tree.map(lambda leaf: on_host(leaf) if isinstance(leaf, jax.Array) else leaf, tree)


def on_host(array: jax.Array) -> np.ndarray:
    """The whole of an array on the host, in every process."""
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(array, tiled=True)
