"""A function of one example over a large array, in batches of one compiled size."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ..data.files.lazy import Lazy


def batched(
    function: Callable[..., Any], *arrays: np.ndarray | Lazy, batch_size: int = 500, prepare: Callable | None = None
) -> Any:
    """`jax.vmap(function)` over the first axis, as NumPy arrays; the last batch is filled up with its first row and cut
    again.

    Args:
        function: of one example of each array; a pytree, such as a bound method of a model, so that its arrays are no
            constants.
        prepare: applied to each batch of the first array on the host, such as the scaling of uint8 images.
    """
    size = len(arrays[0])
    batch_size = min(batch_size, size)
    results = []
    for start in range(0, size, batch_size):
        parts = [array[start : start + batch_size] for array in arrays]
        if prepare:
            parts[0] = prepare(parts[0])
        short = batch_size - len(parts[0])
        parts = [np.concatenate([part, np.repeat(part[:1], short, axis=0)]) if short else part for part in parts]
        results.append(jax.tree.map(lambda x, n=batch_size - short: np.asarray(x)[:n], _map(function, *parts)))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *results)


@eqx.filter_jit
def _map(function: Callable[..., Any], *arrays: Any) -> Any:
    return jax.vmap(function)(*arrays)
