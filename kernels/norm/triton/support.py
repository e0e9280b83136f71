"""The calls that the kernels compute."""

import jax.numpy as jnp

from ..fold import sharing
from ..spec import Spec
from . import tiling


def supports(x, row_shape: tuple[int, ...], spec: Spec) -> str | None:
    """The reason why the kernels cannot run on an x of this shape and dtype with parameters of `row_shape`, or None."""
    if x.dtype not in (jnp.float32, jnp.bfloat16, jnp.float16):
        return f"x must be float32, bfloat16 or float16, got {x.dtype}"
    if 0 in x.shape:
        return f"x is empty: {x.shape}"
    if spec.batch_dims is not None and x.shape[-1] // spec.groups > tiling.LONGEST:
        return f"a group may have at most {tiling.LONGEST} channels, got {x.shape[-1] // spec.groups}"
    if sharing(x.shape, row_shape, spec) is None:
        where = "x" if spec.batch_dims is None else "x's batch"
        return (
            f"the modulation, of shape {row_shape}, must have the leading axes of {where} and then 1 on all others, "
            f"got x.shape={x.shape}"
        )
    return None
