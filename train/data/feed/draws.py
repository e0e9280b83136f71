"""Random numbers of the places in a batch, the same however the batch is shared out."""

import numpy as np
from jaxtyping import Float64, Integer


def uniforms(
    seed: int, step: int, index: Integer[np.ndarray, " n"], count: int, purpose: int = 0
) -> Float64[np.ndarray, "n count"]:
    """`count` numbers in [0, 1) for each place of a step's batch.

    They are a function of (seed, step, place, purpose) alone, so they are the same in any process, thread or worker,
    and after a resume. As with the order of examples they come from raw Philox words, which NumPy promises never to
    change.

    Args:
        seed: `0 <= seed < 2**64`.
        step: the global step.
        index: places in the global batch.
        count: numbers for each place.
        purpose: sets apart what is drawn for different ends in one step.
    """
    # The counter keeps these words apart from those of the epochs' permutations, which have the same kind of key.
    philox = np.random.Philox(
        key=np.array([seed, step], np.uint64), counter=np.array([0, 0, 0, 1 + purpose], np.uint64)
    )
    words = philox.random_raw((int(index.max(initial=-1)) + 1) * count).reshape(-1, count)[index]
    return (words >> np.uint64(11)) * 2.0**-53
