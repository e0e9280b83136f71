"""The public norms: argument checks, and the call of the fused op or of the reference."""

import functools
from typing import Any, Literal, overload

import jax
from jaxtyping import Array, Float

from .._explicit import on_auto_axes, places_of, spec_like
from .._fused import Places, vary_alike
from . import reference
from .checks import check_groups, check_input, check_modulation, check_numbers, check_parameter, check_residual
from .fold import fold
from .primitives import Norm
from .spec import Spec

Implementation = Literal["reference", "xla", "mosaic_tpu", "triton"]
Row = Float[Array, "..."]


@overload
def layer_norm(
    x: Float[Array, "*leading dim"],
    scale: Float[Array, " dim"] | None = None,
    bias: Float[Array, " dim"] | None = None,
    *,
    residual: None = None,
    modulation: tuple[Row, Row] | None = None,
    epsilon: float = 1e-5,
    implementation: Implementation | None = None,
) -> Float[Array, "*leading dim"]: ...
@overload
def layer_norm(
    x: Float[Array, "*leading dim"],
    scale: Float[Array, " dim"] | None = None,
    bias: Float[Array, " dim"] | None = None,
    *,
    residual: Float[Array, "*leading dim"],
    modulation: tuple[Row, Row] | None = None,
    epsilon: float = 1e-5,
    implementation: Implementation | None = None,
) -> tuple[Float[Array, "*leading dim"], Float[Array, "*leading dim"]]: ...
def layer_norm(
    x: Float[Array, "*leading dim"],
    scale: Float[Array, " dim"] | None = None,
    bias: Float[Array, " dim"] | None = None,
    *,
    residual: Float[Array, "*leading dim"] | None = None,
    modulation: tuple[Row, Row] | None = None,
    epsilon: float = 1e-5,
    implementation: Implementation | None = None,
) -> Float[Array, "*leading dim"] | tuple[Float[Array, "*leading dim"], Float[Array, "*leading dim"]]:
    """Layer normalisation over the last axis.

        h = x + residual                                     (h = x without a residual)
        y = (h - mean(h)) / sqrt(variance(h) + epsilon) * scale + bias
        y = y * (1 + modulation_scale) + modulation_shift    (with a modulation)

    Statistics, parameters and sums are float32 (float64 for float64 input) for every dtype, the variance is taken
    around the mean in a second pass, and the result has x's dtype. A constant row gives `bias`, with finite gradients;
    so does a row whose variance overflows float32 (values from about 1e19 on). Differentiable in every array argument,
    in reverse and forward mode and to any order; the backward pass keeps x (or h), the mean and the reciprocal
    deviation, and no float32 copy of x.

    Args:
        x: `(*leading, dim)`, floating point. Pass whole `(seq, dim)` arrays: one kernel normalises all their rows.
        scale, bias: `(dim,)`, of any floating dtype; `None` leaves the factor or the term out.
        residual: of x's shape and dtype, added to x before the norm, in the same pass over memory.
        modulation: `(shift, scale)`, as in adaptive layer norm; each of shape `(dim,)`, or of x's rank with 1 on every
            axis along which it is broadcast: `(batch, 1, dim)` modulates each example of a `(batch, seq, dim)` x.
        epsilon: added to the variance; positive.
        implementation: `None` takes the fastest that can run; "reference", "xla", "mosaic_tpu" or "triton" runs
            or raises.

    Returns:
        y, or `(y, h)` when a residual is given.

    Raises:
        ValueError: an argument violates its constraint; the message names the argument, the constraint and the values.
        NotImplementedError: the named implementation cannot run here; the message has the reason.

    Source: Ba, Kiros and Hinton 2016 (arXiv:1607.06450), equation 4; the modulation is adaLN of Peebles and Xie 2023
        (arXiv:2212.09748).
    """
    check_input("layer_norm", x)
    check_numbers("layer_norm", epsilon)
    return _rows("layer_norm", x, scale, bias, residual, modulation, Spec(epsilon), implementation)


@overload
def rms_norm(
    x: Float[Array, "*leading dim"],
    scale: Float[Array, " dim"] | None = None,
    *,
    residual: None = None,
    modulation: tuple[Row, Row] | None = None,
    epsilon: float = 1e-6,
    scale_offset: float = 0.0,
    implementation: Implementation | None = None,
) -> Float[Array, "*leading dim"]: ...
@overload
def rms_norm(
    x: Float[Array, "*leading dim"],
    scale: Float[Array, " dim"] | None = None,
    *,
    residual: Float[Array, "*leading dim"],
    modulation: tuple[Row, Row] | None = None,
    epsilon: float = 1e-6,
    scale_offset: float = 0.0,
    implementation: Implementation | None = None,
) -> tuple[Float[Array, "*leading dim"], Float[Array, "*leading dim"]]: ...
def rms_norm(
    x: Float[Array, "*leading dim"],
    scale: Float[Array, " dim"] | None = None,
    *,
    residual: Float[Array, "*leading dim"] | None = None,
    modulation: tuple[Row, Row] | None = None,
    epsilon: float = 1e-6,
    scale_offset: float = 0.0,
    implementation: Implementation | None = None,
) -> Float[Array, "*leading dim"] | tuple[Float[Array, "*leading dim"], Float[Array, "*leading dim"]]:
    """Root-mean-square normalisation over the last axis.

        h = x + residual                                     (h = x without a residual)
        y = h / sqrt(mean(h^2) + epsilon) * (scale_offset + scale)
        y = y * (1 + modulation_scale) + modulation_shift    (with a modulation)

    Dtypes, derivatives and what is kept for the backward pass are those of `layer_norm`.

    Args:
        x: `(*leading, dim)`, floating point.
        scale: `(dim,)`, of any floating dtype; `None` leaves the factor out, `scale_offset` with it.
        residual: of x's shape and dtype, added to x before the norm, in the same pass over memory.
        modulation: `(shift, scale)` as in `layer_norm`.
        epsilon: added to the mean square; positive.
        scale_offset: added to the scale in float32; 1.0 for models that store their scale around zero (Gemma).
        implementation: as in `layer_norm`.

    Returns:
        y, or `(y, h)` when a residual is given.

    Raises:
        ValueError: an argument violates its constraint; the message names the argument, the constraint and the values.
        NotImplementedError: the named implementation cannot run here; the message has the reason.

    Source: Zhang and Sennrich 2019 (arXiv:1910.07467), equation 4, with epsilon under the root.
    """
    check_input("rms_norm", x)
    check_numbers("rms_norm", epsilon, scale_offset)
    spec = Spec(epsilon, center=False, scale_offset=scale_offset)
    return _rows("rms_norm", x, scale, None, residual, modulation, spec, implementation)


def group_norm(
    x: Float[Array, "*batch_spatial channels"],
    scale: Float[Array, " channels"] | None = None,
    bias: Float[Array, " channels"] | None = None,
    *,
    groups: int,
    activation: Literal["silu"] | None = None,
    modulation: tuple[Row, Row] | None = None,
    epsilon: float = 1e-5,
    batch_dims: int = 1,
    implementation: Implementation | None = None,
) -> Float[Array, "*batch_spatial channels"]:
    """Group normalisation of channels-last images, sequences or volumes.

        y = (x - mean(x)) / sqrt(variance(x) + epsilon) * scale + bias
        y = y * (1 + modulation_scale) + modulation_shift    (with a modulation)
        y = y * sigmoid(y)                                   (with activation="silu")

    Mean and variance are over the spatial axes and one group of an example. The numbers are those of
    `torch.nn.functional.group_norm`, which has its channels second. Dtypes, derivatives and what is
    kept for the backward pass are those of `layer_norm`.

    Args:
        x: `(*batch, *spatial, channels)`, floating point.
        scale, bias: `(channels,)`, of any floating dtype; `None` leaves the factor or the term out.
        groups: number of groups of neighbouring channels; divides the channels.
        activation: `None` or "silu", applied last.
        modulation: `(shift, scale)`; each of shape `(channels,)`, or of x's rank with 1 on every axis along which it is
            broadcast, e.g. `(batch, 1, 1, channels)` for images.
        epsilon: added to the variance; positive.
        batch_dims: number of leading axes of x that are batch axes; 1 as in PyTorch, 0 for a single example.
        implementation: as in `layer_norm`.

    Raises:
        ValueError: an argument violates its constraint; the message names the argument, the constraint and the values.
        NotImplementedError: the named implementation cannot run here; the message has the reason.

    Source: Wu and He 2018 (arXiv:1803.08494), equations 1, 6 and 7.
    """
    check_groups("group_norm", x, groups, batch_dims, activation)
    check_numbers("group_norm", epsilon)
    spec = Spec(epsilon, groups=groups, batch_dims=batch_dims, activation=activation)
    return _run("group_norm", x, None, scale, bias, modulation, spec, implementation)[0]


def _rows(
    op: str,
    x: Array,
    scale: Array | None,
    bias: Array | None,
    residual: Array | None,
    modulation: Any,  # checked below
    spec: Spec,
    implementation: str | None,
) -> Array | tuple[Array, Array]:
    check_residual(op, residual, x)
    y, h = _run(op, x, residual, scale, bias, modulation, spec, implementation)
    return y if residual is None else (y, h)


def _run(
    op: str,
    x: Array,
    residual: Array | None,
    scale: Array | None,
    bias: Array | None,
    modulation: Any,  # checked below
    spec: Spec,
    implementation: str | None,
) -> tuple[Array, Array]:
    check_parameter(op, "scale", scale, x)
    check_parameter(op, "bias", bias, x)
    check_modulation(op, modulation, x)
    rows = (x,) if residual is None else (x, residual)
    out = spec_like(*rows, axes=x.ndim)
    places = places_of(rows, out, whole=range(spec.batch(x.ndim), x.ndim))
    function = functools.partial(_norm, op=op, spec=spec, implementation=implementation, places=places)
    return on_auto_axes(function, (x, residual, scale, bias, modulation), (out, out))


def _norm(*arrays, op: str, spec: Spec, implementation: str | None, places: Places | None) -> tuple[Array, Array]:
    leaves, tree = jax.tree.flatten(arrays)
    x, residual, scale, bias, modulation = jax.tree.unflatten(tree, vary_alike(*leaves))
    factor, term = fold(x, scale, bias, modulation, spec)
    norm = Norm(op, spec, residual is not None, implementation, places)
    if norm.check(x, factor) == "reference":
        h = x if residual is None else x + residual
        return reference.norm(h, scale, bias, modulation, spec), h
    return norm((x,) if residual is None else (x, residual), (factor, term))
