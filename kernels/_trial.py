"""Whether a program for NVIDIA GPUs can be built, found out by building it once.

A kernel is built long after the choice of an implementation, when it is too late for another one.
"""

import functools
from collections.abc import Callable, Hashable
from typing import Any

import jax


def build_failure(function: Callable[..., Any], *operands: Any, **parameters: Hashable) -> str | None:
    """What the compiler has against `function(*operands, **parameters)`, or None.

    `function` is hashable, and of the operands only the shapes and dtypes count: a call is built once.
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
            # Here the assembler has its say too; it remembers the kernel, so the program's own build is short.
            lowered.compile()
    # Whatever stops the compiler, in its many libraries, must leave the program to the next implementation.
    except Exception as error:
        message = str(error).strip()
        return f"it does not build: {type(error).__name__}: {message.splitlines()[0] if message else ''}"
    return None
