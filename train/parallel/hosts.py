"""Several processes: how they find each other, and what one may do for all."""

import os
from typing import TypeVar

import jax
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from train.errors import UserError

Tree = TypeVar("Tree", bound=PyTree)

# What says that this process is one of several, which JAX then finds by itself; the number of processes where it is said.
SURROUNDINGS = {
    "SLURM_STEP_NUM_TASKS": "SLURM",
    "OMPI_COMM_WORLD_SIZE": "Open MPI",
    "JAX_NUM_PROCESSES": "JAX",
}


def start(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    """Joins the other processes of a run, if there are any. To be called once, before anything asks for a device.

    Without arguments, TPU pods, SLURM, Open MPI and JAX's own variables are recognised by `jax.distributed.initialize`.

    Args:
        coordinator: `host:port` of process 0.
        num_processes: how many there are.
        process_id: which of them this is, from 0.

    Raises:
        UserError: the others cannot be reached.
    """
    if (coordinator is None and not surrounded()) or jax.distributed.is_initialized():
        return
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except (RuntimeError, ValueError) as error:
        where = f"--coordinator {coordinator}" if coordinator else "the processes of this job"
        raise UserError(f"{where}: the processes did not find each other: {str(error).splitlines()[0]}") from None


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


def whole(tree: Tree) -> Tree:
    """The tree with every array whole and in the memory of this host; every process must call it."""

    def fetch(leaf: object) -> object:
        if not isinstance(leaf, jax.Array):
            return leaf
        if leaf.is_fully_addressable or leaf.is_fully_replicated:
            return jax.device_get(leaf)
        return multihost_utils.process_allgather(leaf, tiled=True)

    return jax.tree.map(fetch, tree)
