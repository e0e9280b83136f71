"""Many devices: the mesh, where each array lies on it, one update over all of them, and several hosts."""

from train.parallel.hosts import barrier, is_main, start, whole
from train.parallel.mesh import AXES, BATCH, check_batch, local_rows, make_mesh, parse_mesh, parts, replicated, split
from train.parallel.rules import check_heads, place, shardings, spec_of
from train.parallel.step import (
    Axes,
    Loss,
    State,
    Sums,
    abstract_state,
    average,
    gradients,
    init_state,
    make_step,
    make_update,
    sharded_state,
    trainable,
)

__all__ = [
    "AXES",
    "BATCH",
    "Axes",
    "Loss",
    "State",
    "Sums",
    "abstract_state",
    "average",
    "barrier",
    "check_batch",
    "check_heads",
    "gradients",
    "init_state",
    "is_main",
    "local_rows",
    "make_mesh",
    "make_step",
    "make_update",
    "parse_mesh",
    "parts",
    "place",
    "replicated",
    "sharded_state",
    "shardings",
    "spec_of",
    "split",
    "start",
    "trainable",
    "whole",
]
