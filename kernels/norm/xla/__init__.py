"""The norms in XLA operations, on folded parameters.

    x_hat = (h - mean) * rstd,    z = x_hat * factor + term,    y = act(z)

Statistics are `(*batch, groups)` in the accumulator's dtype; the mean is None without centring.

XLA's CPU compiler compiles a chain of elementwise operations and sums along rows to one loop over cache-sized blocks,
but only if no result inside the chain has another user: an x_hat shared between the passes or among the gradients is
written to memory, and so are the broadcast rows it is made of. With `cpu=True` each result therefore has its own chain
from h and dy, and a barrier hides the common beginnings from the compiler. The numbers are the same up to rounding.
"""

from .backward import gradients
from .forward import normalise, tangent
from .moments import kept_statistics

__all__ = ["gradients", "kept_statistics", "normalise", "tangent"]
