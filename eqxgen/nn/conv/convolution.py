"""Convolutions, channels-last, with one implementation for every rank."""

import functools
import itertools
import math
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float, PRNGKeyArray

from eqxgen.nn import _check
from eqxgen.nn.linear import Initializer

conv_uniform: Initializer = jax.nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
"""Uniform in ±1/sqrt(fan_in) for kernels of shape (*kernel, in, out): the default of torch and Equinox."""

SHIFTS = 64  # largest number of kernel positions that are summed one by one
WIDE = (16, 32)  # channels in and out from which the weight's gradient is faster as products
PADDINGS = {"zeros": "constant", "circular": "wrap", "reflect": "reflect"}  # torch's names, and those of jnp.pad


class Convolution(eqx.Module):
    """2-D convolution of one image `(height, width, in_channels)`; `Convolution1D` is for one sequence `(seq,
    in_channels)`.

        y[i] = bias + Σ_j padded[stride * i + dilation * j] @ weight[j]     over the positions j of the kernel

    Args:
        in_channels, out_channels: sizes of the last axis.
        kernel: side of the kernel.
        stride: step between outputs.
        padding: entries added at each border; `dilation * (kernel - 1) // 2` by default, which keeps the size at stride
            1 and odd `kernel`.
        dilation: step between the positions of the kernel.
        groups: number of independent convolutions of equal shares of the channels; it divides both channel counts.
        padding_mode: values of the padding: "zeros", "circular" (the other end) or "reflect" (mirrored about the last
            entry), as torch.
        bias: adds a bias, zero at initialisation.
        init: a `jax.nn.initializers` function for the kernel `(kernel, kernel, in_channels // groups, out_channels)`.

    Raises:
        ValueError: a number violates its constraint; x has another rank or channel count, or is smaller than the kernel
            or its padding.
    """

    rank: ClassVar[int] = 2

    weight: Float[Array, "*kernel in_group out_channels"]
    bias: Float[Array, " out_channels"] | None
    stride: int = eqx.field(static=True)
    padding: int = eqx.field(static=True)
    dilation: int = eqx.field(static=True)
    groups: int = eqx.field(static=True)
    padding_mode: str = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int = 3,
        stride: int = 1,
        padding: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        padding_mode: str = "zeros",
        bias: bool = True,
        init: Initializer = conv_uniform,
        key: PRNGKeyArray,
    ):
        self.padding = _checked_padding(in_channels, out_channels, kernel, stride, padding, dilation, groups)
        _check.one_of("padding_mode", padding_mode, PADDINGS)
        self.weight = init(key, (*(kernel,) * self.rank, in_channels // groups, out_channels), jnp.float32)
        self.bias = jnp.zeros(out_channels) if bias else None
        self.stride, self.dilation, self.groups, self.padding_mode = stride, dilation, groups, padding_mode

    def __call__(
        self, x: Float[Array, "*spatial in_channels"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "*out_spatial out_channels"]:
        kernel, padding = self.weight.shape[0], self.padding
        _check.image(x, self.rank, in_channels=self.weight.shape[-2] * self.groups)
        if min(x.shape[:-1]) + 2 * padding <= self.dilation * (kernel - 1):
            raise ValueError(
                f"every spatial axis of x must with its padding be at least as long as the dilated kernel={kernel}: "
                f"got shape {x.shape}, padding={padding}, dilation={self.dilation}"
            )
        if self.padding_mode != "zeros":
            x, padding = self._padded(x), 0
        y = convolve(
            x, self.weight, stride=self.stride, padding=(padding, padding), dilation=self.dilation, groups=self.groups
        )
        return y if self.bias is None else y + self.bias.astype(y.dtype)[(None,) * self.rank]

    def _padded(self, x: Array) -> Array:
        longest = min(x.shape[:-1]) - (self.padding_mode == "reflect")
        if self.padding > longest:
            raise ValueError(
                f"padding must be at most {longest} with padding_mode={self.padding_mode!r}: got {self.padding} for "
                f"{x.shape}"
            )
        return jnp.pad(x, (*((self.padding, self.padding),) * self.rank, (0, 0)), mode=PADDINGS[self.padding_mode])


class Convolution1D(Convolution):
    """`Convolution` of one sequence `(seq, in_channels)`, with a kernel `(kernel, in_channels // groups,
    out_channels)`.
    """

    rank: ClassVar[int] = 1
    __init__ = Convolution.__init__  # inherited; repeated for type checkers, which give a dataclass a new one


class ConvolutionTranspose(eqx.Module):
    """The transpose of a 2-D convolution, for one image `(height, width, in_channels)`; `ConvolutionTranspose1D` is for
    one sequence.

    Each entry of x is spread over the output, whose sides are `(side - 1) * stride - 2 * padding + dilation * (kernel -
    1) + 1 + output_padding`, as torch:

        y[stride * i + dilation * j - padding] += x[i] @ weight[j]     over the positions j of the kernel

    Args:
        in_channels, out_channels: sizes of the last axis.
        kernel: side of the kernel.
        stride: step between the outputs of neighbouring entries.
        padding: entries cut from each border; `dilation * (kernel - 1) // 2` by default, which makes
            stride 2 and kernel 4 double an image.
        output_padding: entries added to the far border of each axis; less than the stride or the dilation.
        dilation: step between the positions of the kernel.
        groups: number of independent convolutions of equal shares of the channels; it divides both channel counts.
        bias: adds a bias, zero at initialisation.
        init: a `jax.nn.initializers` function for the kernel `(kernel, kernel, in_channels // groups, out_channels)`.
            By default uniform in ±1/sqrt(its first three axes' product), where torch counts output channels.

    Raises:
        ValueError: a number violates its constraint; x has another rank or channel count; the output would be empty.
    """

    rank: ClassVar[int] = 2

    weight: Float[Array, "*kernel in_group out_channels"]
    bias: Float[Array, " out_channels"] | None
    stride: int = eqx.field(static=True)
    padding: int = eqx.field(static=True)
    output_padding: int = eqx.field(static=True)
    dilation: int = eqx.field(static=True)
    groups: int = eqx.field(static=True)

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int = 3,
        stride: int = 1,
        padding: int | None = None,
        output_padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        init: Initializer = conv_uniform,
        key: PRNGKeyArray,
    ):
        self.padding = _checked_padding(in_channels, out_channels, kernel, stride, padding, dilation, groups)
        if not 0 <= output_padding < max(stride, dilation):
            raise ValueError(
                f"output_padding must be in [0, the larger of stride and dilation): got {output_padding}, "
                f"stride={stride}, dilation={dilation}"
            )
        self.weight = init(key, (*(kernel,) * self.rank, in_channels // groups, out_channels), jnp.float32)
        self.bias = jnp.zeros(out_channels) if bias else None
        self.stride, self.output_padding, self.dilation, self.groups = stride, output_padding, dilation, groups

    def __call__(
        self, x: Float[Array, "*spatial in_channels"], *, key: PRNGKeyArray | None = None
    ) -> Float[Array, "*out_spatial out_channels"]:
        _check.image(x, self.rank, in_channels=self.weight.shape[-2] * self.groups)
        border = self.dilation * (self.weight.shape[0] - 1) - self.padding
        pads = (border, border + self.output_padding)
        shortest = (min(x.shape[:-1]) - 1) * self.stride + self.dilation * (1 - self.weight.shape[0]) + sum(pads) + 1
        if shortest < 1:
            raise ValueError(
                f"padding={self.padding} must leave at least 1 entry of every axis: got shape {x.shape}, which leaves "
                f"{shortest}"
            )
        sides = [shortest + (side - min(x.shape[:-1])) * self.stride for side in x.shape[:-1]]
        if self.stride > 1 and self.dilation == 1 and not _is_depthwise(x, self.weight, self.groups):
            y = _by_phases(x, self.weight, stride=self.stride, groups=self.groups)
            cuts = [(-self.padding, side + self.padding - full, 0) for side, full in zip(sides, y.shape)]
            y = jax.lax.pad(y, jnp.zeros((), y.dtype), (*cuts, (0, 0, 0)))
        else:
            x = jax.lax.pad(x, jnp.zeros((), x.dtype), (*((*pads, self.stride - 1),) * self.rank, (0, 0, 0)))
            y = convolve(x, jnp.flip(self.weight, tuple(range(self.rank))), dilation=self.dilation, groups=self.groups)
        return y if self.bias is None else y + self.bias.astype(y.dtype)[(None,) * self.rank]


class ConvolutionTranspose1D(ConvolutionTranspose):
    """`ConvolutionTranspose` of one sequence `(seq, in_channels)`, with a kernel `(kernel, in_channels // groups,
    out_channels)`.
    """

    rank: ClassVar[int] = 1
    __init__ = ConvolutionTranspose.__init__  # inherited; repeated for type checkers, which give a dataclass a new one


def convolve(
    x: Float[Array, "*spatial in_channels"],
    weight: Float[Array, "*kernel in_group out_channels"],
    *,
    stride: int = 1,
    padding: tuple[int, int] = (0, 0),
    dilation: int = 1,
    groups: int = 1,
) -> Float[Array, "*out_spatial out_channels"]:
    """A convolution of one example with equal settings on every axis: `jax.lax.conv_general_dilated`, except on a CPU
    for small depthwise kernels, and for the gradient of a wide weight or one in groups at stride 1.
    """
    whole = functools.partial(_library, stride=stride, padding=padding, dilation=dilation, groups=groups)
    weight = weight.astype(x.dtype)
    if _is_depthwise(x, weight, groups) and math.prod(weight.shape[:-2]) <= SHIFTS:
        shifts = functools.partial(_by_shifts, stride=stride, padding=padding, dilation=dilation)
        return jax.lax.platform_dependent(x, weight, cpu=shifts, default=whole)
    wide = x.shape[-1] >= WIDE[0] and weight.shape[-1] >= WIDE[1]
    if stride == 1 and (groups > 1 or wide or weight.shape[0] == 1):
        products = functools.partial(_with_products, padding, dilation, groups)
        return jax.lax.platform_dependent(x, weight, cpu=products, default=whole)
    return whole(x, weight)


def _is_depthwise(x: Array, weight: Array, groups: int) -> bool:
    return groups == x.shape[-1] == weight.shape[-1]


def _library(x: Array, weight: Array, *, stride: int, padding: tuple[int, int], dilation: int, groups: int) -> Array:
    rank = x.ndim - 1
    axes = "DHW"[3 - rank :]
    if sum(padding) > dilation * (weight.shape[0] - 1):
        # Explicit padding where the output is larger than x: with padding as an argument of the convolution, its
        # gradient takes ten times as long on a CPU.
        x, padding = jax.lax.pad(x, jnp.zeros((), x.dtype), (*((*padding, 0),) * rank, (0, 0, 0))), (0, 0)
    return jax.lax.conv_general_dilated(
        x[None],
        weight,
        window_strides=(stride,) * rank,
        padding=(padding,) * rank,
        rhs_dilation=(dilation,) * rank,
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
        feature_group_count=groups,
    )[0]


def _by_shifts(x: Array, weight: Array, *, stride: int, padding: tuple[int, int], dilation: int) -> Array:
    """A depthwise convolution as a sum of shifted copies, in float32: one loop on a CPU, where XLA's convolution runs
    channel by channel.
    """
    rank = x.ndim - 1
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), (*((*padding, 0),) * rank, (0, 0, 0)))
    counts = [(side - dilation * (weight.shape[0] - 1) - 1) // stride + 1 for side in x.shape[:-1]]
    wide = jnp.promote_types(x.dtype, jnp.float32)
    total = jnp.zeros((*counts, x.shape[-1]), wide)
    for place in itertools.product(range(weight.shape[0]), repeat=rank):
        starts = [dilation * i for i in place]
        ends = [start + stride * (count - 1) + 1 for start, count in zip(starts, counts)]
        part = jax.lax.slice(x, (*starts, 0), (*ends, x.shape[-1]), (*(stride,) * rank, 1))
        total = total + part.astype(wide) * weight[place].astype(wide)[(None,) * (rank - 1)]
    return total.astype(x.dtype)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _with_products(padding: tuple[int, int], dilation: int, groups: int, x: Array, weight: Array) -> Array:
    """A convolution at stride 1 whose gradient for the weight is of matrix products: XLA's, on a CPU, is a convolution
    with a kernel of the image's size, which takes up to seven times as long, and in groups up to 35 times.
    """
    return _library(x, weight, stride=1, padding=padding, dilation=dilation, groups=groups)


def _tangent(padding: tuple[int, int], dilation: int, groups: int, primals: Any, tangents: Any) -> tuple[Array, Any]:
    x, weight = primals
    dx, dweight = tangents
    y = _with_products(padding, dilation, groups, x, weight)
    given = lambda tangent: not isinstance(tangent, SymbolicZero)
    # XLA's transpose of a convolution in groups would have its own slow gradient for the weight, in a penalty.
    moved = _with_products if groups == 1 else _by_products
    parts = [moved(padding, dilation, groups, dx, weight)] if given(dx) else []
    parts += [_by_products(padding, dilation, groups, x, dweight)] if given(dweight) else []
    return y, sum(parts[1:], parts[0]) if parts else jnp.zeros_like(y)


_with_products.defjvp(_tangent, symbolic_zeros=True)


@functools.partial(jax.checkpoint, prevent_cse=False, static_argnums=(0, 1, 2))
def _by_products(padding: tuple[int, int], dilation: int, groups: int, x: Array, weight: Array) -> Array:
    """A convolution at stride 1 as a sum of products, one for all positions of the kernel along the last axis; the
    shifted copies of x that its gradient for the weight is made of are not kept from the forward pass.
    """
    rank, kernel = x.ndim - 1, weight.shape[0]
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), (*((*padding, 0),) * rank, (0, 0, 0)))
    counts = [side - dilation * (kernel - 1) for side in x.shape[:-1]]
    along = lambda y, axis, j: jax.lax.slice_in_dim(y, dilation * j, dilation * j + counts[axis], axis=axis)
    columns = jnp.stack([along(x, rank - 1, j) for j in range(kernel)], rank)
    total = jnp.zeros((*counts, weight.shape[-1]), x.dtype)
    for place in itertools.product(range(kernel), repeat=rank - 1):
        part = functools.reduce(lambda y, i: along(y, i, place[i]), range(rank - 1), columns)
        total = total + _product(part, weight[place], groups)
    return total


def _product(x: Array, weight: Array, groups: int) -> Array:
    """The sum over the positions (..., kernel, channels) of a kernel along one axis, in groups."""
    if groups == 1:
        return jnp.tensordot(x, weight, ((-2, -1), (-3, -2)))
    kernel, in_group, channels = weight.shape
    weight = weight.reshape(kernel, in_group, groups, channels // groups)
    y = jnp.einsum("...kgi,kigo->...go", x.reshape(*x.shape[:-1], groups, in_group), weight)
    return y.reshape(*y.shape[:-2], channels)


def _by_phases(x: Array, weight: Array, *, stride: int, groups: int) -> Array:
    """The transpose of a convolution without padding: the outputs of each phase of the stride are a convolution of x.

    One convolution with kernels `stride` times shorter computes all phases as channels. A convolution over x with zeros
    between its entries would mostly multiply zeros, and its gradients are several times as slow.
    """
    rank, kernel = x.ndim - 1, weight.shape[0]
    taps = -(-kernel // stride)
    weight = jax.lax.pad(
        weight, jnp.zeros((), weight.dtype), (*((0, taps * stride - kernel, 0),) * rank, (0, 0, 0), (0, 0, 0))
    )
    in_group, out_channels = weight.shape[-2:]
    weight = weight.reshape(*(taps, stride) * rank, in_group, groups, out_channels // groups)
    places, phases = range(0, 2 * rank, 2), range(1, 2 * rank, 2)
    weight = jnp.flip(weight, tuple(places)).transpose(*places, 2 * rank, 2 * rank + 1, *phases, 2 * rank + 2)
    y = convolve(x, weight.reshape(*(taps,) * rank, in_group, -1), padding=(taps - 1, taps - 1), groups=groups)
    sides = y.shape[:-1]
    y = y.reshape(*sides, groups, *(stride,) * rank, out_channels // groups)
    pairs = [axis for i in range(rank) for axis in (i, rank + 1 + i)]
    y = y.transpose(*pairs, rank, 2 * rank + 1)
    for axis in range(rank + 1):  # one at a time, as explicit mesh axes require
        y = y.reshape(*y.shape[:axis], -1, *y.shape[axis + 2 :])
    return y


def _checked_padding(
    in_channels: int, out_channels: int, kernel: int, stride: int, padding: int | None, dilation: int, groups: int
) -> int:
    _check.positive(
        in_channels=in_channels,
        out_channels=out_channels,
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        groups=groups,
    )
    _check.divides(groups=groups, in_channels=in_channels)
    _check.divides(groups=groups, out_channels=out_channels)
    if padding is None:
        return dilation * (kernel - 1) // 2
    _check.not_negative(padding=padding)
    return padding
