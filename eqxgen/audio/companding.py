"""Samples as integers: mu-law companding (ITU-T G.711), and levels of even steps."""

import math

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from eqxgen._widen import widen
from eqxgen.nn import _check


def mu_law_compress(wave: Float[Array, "*shape"], mu: int = 255) -> Float[Array, "*shape"]:
    """sign(x) log(1 + mu |x|) / log(1 + mu), from [-1, 1] to [-1, 1], in float32 at least."""
    _check.positive(mu=mu)
    _check.inexact(wave, "wave")
    wave = widen(wave)
    return jnp.sign(wave) * jnp.log1p(mu * jnp.abs(wave)) / math.log1p(mu)


def mu_law_expand(wave: Float[Array, "*shape"], mu: int = 255) -> Float[Array, "*shape"]:
    """The inverse of `mu_law_compress`."""
    _check.positive(mu=mu)
    wave = widen(wave)
    return jnp.sign(wave) * jnp.expm1(jnp.abs(wave) * math.log1p(mu)) / mu


def to_levels(wave: Float[Array, "*shape"], bits: int, mu: int = 0) -> Int[Array, "*shape"]:
    """The nearest of 2**bits levels in [-1, 1], at even steps; samples beyond them get the outer ones.

    Args:
        wave: samples in [-1, 1].
        bits: of a level, at most 16.
        mu: even steps after mu-law companding, of mu = 255 for 8 bits; 0: without.
    """
    _check.inexact(wave, "wave")
    top = 2 ** _bits(bits) - 1
    wave = mu_law_compress(wave, mu) if mu else widen(wave)
    return jnp.clip(jnp.round((wave + 1.0) * (0.5 * top)), 0, top).astype(jnp.int32)


def from_levels(levels: Int[Array, "*shape"], bits: int, mu: int = 0) -> Float[Array, "*shape"]:
    """The samples of levels, in float32; arguments of `to_levels`. Levels are integers, and outside of [0, 2**bits) an
    error where their values are known.
    """
    levels = _check.ids(levels, 2 ** _bits(bits), "levels", "2**bits")
    wave = levels.astype(jnp.float32) * (2.0 / (2 ** _bits(bits) - 1)) - 1.0
    return mu_law_expand(wave, mu) if mu else wave


def _bits(bits: int) -> int:
    _check.positive(bits=bits)
    if bits > 16:
        raise ValueError(f"bits must be in [1, 16]: got {bits}")
    return bits
