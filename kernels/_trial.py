"""Trial builds of programs for NVIDIA GPUs.

A kernel is built long after the choice of an implementation, too late to choose another, so it is built once before.
"""

import functools
from collections.abc import Callable, Hashable
from typing import Any

import jax


def build_failure(function: Callable[..., Any], *operands: Any, **parameters: Hashable) -> str | None:
    """The compiler's error for `function(*operands, **parameters)`, or None.

    `function` is hashable. Each call is built once per shapes and dtypes of its operands.
    """
    shapes = tuple((tuple(x.shape), jax.numpy.dtype(x.dtype)) for x in operands)
    return _failure(function, shapes, tuple(parameters.items()))


@functools.lru_cache(maxsize=1024)
def _failure(function: Callable[..., Any], shapes: tuple, parameters: tuple) -> str | None:
    operands = [jax.ShapeDtypeStruct(*x) for x in shapes]
    try:
        lowered = (
            jax.jit(functools.partial(function, **dict(parameters)))
            .trace(*operands)
            .lower(lowering_platforms=("cuda",))
        )
        if jax.default_backend() == "gpu":
            # This runs the assembler too, which caches the kernel for the program's own build.
            lowered.compile()
    # Any error in the compiler's libraries must leave the program to the next implementation.
    except Exception as error:
        message = str(error).strip()
        return f"it does not build: {type(error).__name__}: {message.splitlines()[0] if message else ''}"
    return None
