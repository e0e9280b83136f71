"""The norms as Triton kernels for CUDA, through jax-triton: one pass over memory forward and one backward.

    h = x + residual,    x_hat = (h - mean) * rstd,    y = act(x_hat * factor + term)
    g = dy * factor,     dx = rstd * (g - mean(g) - x_hat * mean(g * x_hat)) + dh

A program of layer norm or RMS norm holds whole rows in registers, or loops over one row that is too long for them. A
program of group norm holds some groups of an example. Where a group's share of an example is too large, kernels take
its sums over parts of the space, and XLA does the elementwise rest in a second pass.

Only `forward`, `backward` and `blocks`, the kernels, import triton.
"""

from .launch import gradients, normalise
from .support import supports

__all__ = ["gradients", "normalise", "supports"]
