"""Residual quantisation (Zeghidour et al. 2021, SoundStream, arXiv:2107.03312, algorithm 1)."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen.nn import _check
from eqxgen.nn.quantize.estimator import Estimator, straight_through
from eqxgen.nn.quantize.quantized import Quantized


class ResidualVQ(eqx.Module):
    """Several quantisers, each of the residual of the previous ones; the vectors are the sum of their codes.

    In the result, `ids`, `distance` and `entropy` have a last axis, and `assignment` a first axis, with one entry for
    each quantiser. The gradient passes to the input once, by the estimator of the sum. Each distance trains its own
    codebook, and the encoder by the residual: no gradient passes from one quantiser to another.

    Args:
        quantizers: quantisers of this package, without a state and with equal numbers of codes.
        dropout: a training call uses only the first n quantisers, n uniform from 1 to all, so that ids can be truncated
            later (section III-C). The distances of the others are zero.
        estimator: gradient estimator from the sum to the vectors.

    Raises:
        ValueError: there are no quantisers, or they differ in `dim` or `codes`; or a key is missing in training with
            dropout.
    """

    quantizers: tuple[Any, ...]
    inference: bool
    dropout: bool = eqx.field(static=True)
    estimator: Estimator = eqx.field(static=True)

    def __init__(
        self,
        quantizers: Sequence[Any],
        *,
        dropout: bool = False,
        estimator: Estimator = straight_through,
        inference: bool = False,
        key: PRNGKeyArray | None = None,
    ):
        sizes = {(quantizer.codes, quantizer.dim) for quantizer in quantizers}
        if len(sizes) != 1:
            raise ValueError(f"quantizers must be one or more of equal codes and dim: got {sorted(sizes)}")
        self.quantizers, self.dropout, self.estimator, self.inference = tuple(quantizers), dropout, estimator, inference

    @property
    def codes(self) -> int:
        return self.quantizers[0].codes

    @property
    def dim(self) -> int:
        return self.quantizers[0].dim

    def __call__(
        self, z: Float[Array, "*leading dim"], *, key: PRNGKeyArray | None = None, inference: bool | None = None
    ) -> Quantized:
        used = self._used(key, inference)
        left, total, found = z, jnp.zeros_like(z), []
        for number, quantizer in enumerate(self.quantizers):
            quantized = quantizer(left)
            weight = (number < used).astype(jnp.float32)
            codes = jax.lax.stop_gradient(quantized.vectors) * weight.astype(z.dtype)
            left, total = left - codes, total + codes
            found.append(quantized._replace(distance=quantized.distance * weight))
        join = lambda name: jnp.stack([getattr(quantized, name) for quantized in found], axis=-1)
        assignment = jnp.stack([quantized.assignment for quantized in found])
        return Quantized(self.estimator(z, total), join("ids"), join("distance"), join("entropy"), assignment)

    def nearest(self, z: Float[Array, "*leading dim"]) -> Int[Array, "*leading quantizers"]:
        """The ids only."""
        ids = []
        for quantizer in self.quantizers:
            ids.append(quantizer.nearest(z))
            z = z - quantizer.lookup(ids[-1]).astype(z.dtype)
        return jnp.stack(ids, axis=-1)

    def lookup(self, ids: _check.Ids) -> Float[Array, "*leading dim"]:
        """The sum of the codes of some ids, of all quantisers or the first ones."""
        ids = jnp.asarray(_check.integers(ids, "ids"))
        if ids.ndim == 0 or ids.shape[-1] > len(self.quantizers):
            raise ValueError(
                f"the last axis of ids must have at most quantizers={len(self.quantizers)} entries: got shape "
                f"{ids.shape}"
            )
        parts = [quantizer.lookup(ids[..., number]) for number, quantizer in zip(range(ids.shape[-1]), self.quantizers)]
        return jnp.sum(jnp.stack(parts), axis=0)

    def _used(self, key: PRNGKeyArray | None, inference: bool | None) -> Int[Array, ""]:
        """Number of quantisers that a call uses."""
        if not self.dropout or (self.inference if inference is None else inference):
            return jnp.asarray(len(self.quantizers))
        if key is None:
            raise ValueError("ResidualVQ with dropout needs key=... in training: pass one, or inference=True")
        return jr.randint(key, (), 1, len(self.quantizers) + 1)
