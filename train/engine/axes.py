"""Programs that can be split over the axes of a mesh."""

import equinox as eqx
import jax.random as jr
from jax.sharding import AbstractMesh, Mesh

from .._errors import UsageError
from ..parallel import check_experts, check_stages
from .recipe import Program


def check_axes(program: Program, mesh: Mesh | AbstractMesh) -> None:
    """Raises `UsageError` unless the program's examples can be split over `context`, its experts over `expert` and its
    blocks over `pipeline`.

    Under `context` each device has two chunks of an example's tokens, an early and a late one, which have the same work
    together under a causal mask.
    """
    count, tokens = mesh.shape["context"], program.sequence
    if count > 1 and tokens is None:
        raise UsageError(
            f"--mesh context needs a recipe whose examples can be split by tokens, such as gpt: got context={count}"
        )
    if count > 1 and tokens is not None and tokens % (2 * count):
        near = max(2 * count, round(tokens / (2 * count)) * 2 * count)
        raise UsageError(
            f"--mesh context must divide half the tokens of an example: got context={count} and {tokens} tokens; try "
            f"{near} tokens"
        )
    if mesh.shape["expert"] > 1 or mesh.shape["pipeline"] > 1:
        model = eqx.filter_eval_shape(program.init, jr.key(0))
        check_stages(model, mesh)
        if mesh.shape["expert"] > 1:
            check_experts(model, mesh)
