"""The norms as Pallas kernels for TPU: one pass over memory forward and one backward.

A program of layer norm or RMS norm holds a block of whole rows in VMEM. With c = h - mean and x_hat = c * rstd,

    forward     h = x + residual,  y = x_hat * factor + term
    backward    g = dy * factor,   dx = rstd * (g - mean(g) - x_hat * mean(g * x_hat)) + dh
                per example: sums of dy * x_hat and of dy over the rows, accumulated in VMEM from block to block

The backward kernel recomputes the statistics from the rows it holds: an array of one number for each row would be
padded to 128 lanes.

A program of group norm holds whole examples, `(space, channels)` each. The sum over a group is the sum over space for
each channel, times the matrix of which channel is in which group, and back by its transpose. An example that does not
fit must be read twice in each pass, as XLA's own operations do.
"""

from .support import supports

__all__ = ["gradients", "normalise", "supports"]


def normalise(*operands, interpret: bool = False):
    """See `forward.normalise`."""
    from . import forward  # Pallas for TPU is slow to import

    return forward.normalise(*operands, interpret=interpret)


def gradients(*operands, interpret: bool = False):
    """See `backward.gradients`."""
    from . import backward

    return backward.gradients(*operands, interpret=interpret)
