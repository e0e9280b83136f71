"""Many devices: the mesh, where each array lies on it, and one update over all of them."""

from ..engine.step import (
    Axes,
    Loss,
    Setup,
    State,
    Sums,
    abstract_state,
    gradients,
    init_state,
    make_step,
    make_update,
    sharded_state,
    trainable,
)
from .mesh import AXES, BATCH, check_batch, local_rows, make_mesh, parse_mesh, parts, replicated, split
from .rules import check_heads, place, spec_of

__all__ = [
    "AXES",
    "BATCH",
    "Axes",
    "Loss",
    "Setup",
    "State",
    "Sums",
    "abstract_state",
    "check_batch",
    "check_heads",
    "gradients",
    "init_state",
    "local_rows",
    "make_mesh",
    "make_step",
    "make_update",
    "parse_mesh",
    "parts",
    "place",
    "replicated",
    "sharded_state",
    "spec_of",
    "split",
    "trainable",
]
