"""Hints that the suite adds to failures whose text is JAX's own."""

import re

BROADCAST = re.compile(r"with the config option jax_numpy_rank_promotion='raise'")
HINT = (
    "The suite refuses implicit rank promotion, as `x * scale` of shapes (seq, dim) and (dim,): write the broadcast out, "
    "`x * scale[None]`; CONTRIBUTING.md, How we write."
)


def hint_of(error: BaseException) -> str | None:
    """The hint for an error, if there is one."""
    return HINT if isinstance(error, ValueError) and BROADCAST.search(str(error)) else None
