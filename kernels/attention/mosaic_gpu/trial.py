"""Whether the kernels of a call can be built, found out by building them once.

A kernel is built long after the choice of a backend, when it is too late for another one.
"""

import functools

import jax

from ..problem import Extras, Setting, accumulator


def build_failure(direction: str, q, k, v, extras: Extras, setting: Setting) -> str | None:
    """What the compiler has against the kernels of the "forward" or "backward" pass of this call, or None."""
    leaves, tree = jax.tree.flatten(extras)
    shapes = tuple((tuple(x.shape), jax.numpy.dtype(x.dtype)) for x in (q, k, v, *leaves))
    return _failure(direction, shapes, tree, setting)


@functools.lru_cache(maxsize=1024)
def _failure(direction: str, shapes, tree, setting: Setting) -> str | None:
    from .attend import attend
    from .gradients import gradients

    operands = [jax.ShapeDtypeStruct(*x) for x in shapes]
    q, v = operands[0], operands[2]
    if direction == "backward":
        out = jax.ShapeDtypeStruct((*q.shape[:3], v.shape[3]), q.dtype)
        numbers = jax.ShapeDtypeStruct(q.shape[:3], accumulator(q.dtype))
        operands += [out, numbers, out, numbers]

    def run(q, k, v, *rest):
        extras, rest = jax.tree.unflatten(tree, rest[: tree.num_leaves]), rest[tree.num_leaves :]
        if direction == "forward":
            return attend(q, k, v, extras, setting)
        return gradients(q, k, v, extras, setting, *rest, with_bias=extras.bias is not None)

    try:
        lowered = jax.jit(run).trace(*operands).lower(lowering_platforms=("cuda",))
        if jax.default_backend() == "gpu":
            # Here the assembler has its say too; it remembers the kernel, so the program's own build is short.
            lowered.compile()
    except Exception as error:  # Whatever stops the compiler, in its many libraries, must leave the program to the next backend.
        return f"it does not build: {type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    return None
