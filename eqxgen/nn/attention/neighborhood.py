"""Neighbourhood attention over a sequence or an image."""

import math

import equinox as eqx
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen import ops
from eqxgen.nn import _check
from eqxgen.nn.attention.self_attention import SelfAttention
from eqxgen.nn.linear import Initializer, torch_uniform

AXES = {1: ("seq",), 2: ("height", "width")}


class NeighborhoodAttention(eqx.Module):
    """Self-attention of each position of a sequence or a grid to the `kernel` nearest along each axis,
    `eqxgen.ops.masks.Neighborhood` (Hassani et al. 2023, arXiv:2204.07143; with a dilation, Hassani and Shi 2022,
    arXiv:2209.15001).

    Blocks of pairs without a neighbour are not computed. There are no relative position biases, as in the later
    versions of the published implementation.

    Args:
        dim: size of the last axis, kept.
        heads: number of heads; must divide dim.
        kernel: positions along each axis: one number for a sequence (seq, dim), a tuple of one for each axis of a grid,
            such as (7, 7) for an image (height, width, dim).
        dilation: distance between them, one number or one for each; kernel * dilation is at most the axis's size.
        dropout: rate on attention probabilities and on the output.
        qk_norm: see `SelfAttention`.
        init: initializer of the weights.

    Raises:
        ValueError: a number violates its constraint; x has other axes, or one that is too short.
    """

    attention: SelfAttention
    kernel: tuple[int, ...] = eqx.field(static=True)
    dilation: int | tuple[int, ...] = eqx.field(static=True)
    dim: int = eqx.field(static=True)

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        kernel: int | tuple[int, ...],
        dilation: int | tuple[int, ...] = 1,
        dropout: float = 0.0,
        qk_norm: bool = False,
        init: Initializer = torch_uniform,
        key: PRNGKeyArray,
    ):
        kernel = kernel if isinstance(kernel, tuple) else (kernel,)
        if not kernel:
            raise ValueError("kernel must be one number or one for each axis: got none")
        for number in kernel:
            _check.positive(kernel=number)
        for number in dilation if isinstance(dilation, tuple) else (dilation,):
            _check.positive(dilation=number)
        if isinstance(dilation, tuple) and len(dilation) != len(kernel):
            raise ValueError(f"dilation must be one number or one for each of kernel={kernel}: got {dilation}")
        self.attention = SelfAttention(dim, heads, dropout=dropout, qk_norm=qk_norm, init=init, key=key)
        self.kernel, self.dilation, self.dim = kernel, dilation, dim

    def __call__(
        self, x: Float[Array, "*spatial dim"], *, key: PRNGKeyArray | None = None, inference: bool | None = None
    ) -> Float[Array, "*spatial dim"]:
        _check.example(x, *AXES.get(len(self.kernel), [f"axis {n}" for n in range(len(self.kernel))]), dim=self.dim)
        shape = x.shape[:-1]
        mask = ops.masks.Neighborhood(shape, self.kernel, self.dilation)
        y = self.attention(x.reshape(math.prod(shape), self.dim), mask=mask, key=key, inference=inference)
        return y.reshape(x.shape)
