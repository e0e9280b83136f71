"""The calls that the kernels compute."""

import jax.numpy as jnp

from ..fold import sharing
from ..spec import Spec
from .tiling import EXAMPLE_BYTES, MAX_CHANNELS, MAX_DIM, example_bytes


def supports(x, row_shape: tuple[int, ...], spec: Spec) -> str | None:
    """The reason why the kernels cannot run on an x of this shape and dtype with parameters of `row_shape`, or None."""
    if x.dtype not in (jnp.float32, jnp.bfloat16):
        return f"x must be float32 or bfloat16, got {x.dtype}"
    if 0 in x.shape:
        return f"x is empty: {x.shape}"
    if spec.batch_dims is None and x.shape[-1] > MAX_DIM:
        return f"a row may have at most {MAX_DIM} elements, got {x.shape[-1]}"
    if spec.batch_dims is not None and x.shape[-1] > MAX_CHANNELS:
        return f"group norm may have at most {MAX_CHANNELS} channels, got {x.shape[-1]}"
    if spec.batch_dims is not None and example_bytes(x.shape, spec) > EXAMPLE_BYTES:
        example = x.shape[spec.batch_dims :]
        return f"an example of group norm must fit in {EXAMPLE_BYTES >> 20} MiB of float32 on chip, got {example}"
    if sharing(x.shape, row_shape, spec) is None:
        where = "x" if spec.batch_dims is None else "x's batch"
        return (
            f"the modulation, of shape {row_shape}, must have the leading axes of {where} and then 1 on all others, "
            f"got x.shape={x.shape}"
        )
    return None
