"""Many devices: the mesh, where each array is placed on it, and how parts are put together."""

from .mesh import AXES, BATCH, check_batch, local_rows, make_mesh, parse_mesh, parts, replicated, split, split_several
from .rules import check_experts, check_heads, check_stages, place, spec_of

__all__ = [
    "AXES",
    "BATCH",
    "check_batch",
    "check_experts",
    "check_heads",
    "check_stages",
    "local_rows",
    "make_mesh",
    "parse_mesh",
    "parts",
    "place",
    "replicated",
    "spec_of",
    "split",
    "split_several",
]
