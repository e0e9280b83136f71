"""A codebook that follows its vectors by moving averages instead of by gradients (van den Oord et al. 2017,
arXiv:1711.00937, appendix A.1).
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen._widen import widen
from eqxgen.nn import _check
from eqxgen.nn._batch import OverBatch, batch_sum
from eqxgen.nn.quantize.codebook import count_codes, drawn
from eqxgen.nn.quantize.estimator import Estimator, straight_through
from eqxgen.nn.quantize.quantized import Quantized, find_nearest, flat, quantise, rows
from eqxgen.nn.quantize.vector import draw_codebook


class Averages(NamedTuple):
    """The state of `EMAQuantizer`: the vectors of each code, averaged, in float32 or the codebook's wider dtype.

    Attributes:
        counts: moving average of how many chose each code in a call.
        sums: moving average of their sum.
    """

    counts: Float[Array, " codes"]
    sums: Float[Array, "codes dim"]

    @classmethod
    def of(cls, codebook: Float[Array, "codes dim"]) -> "Averages":
        """The state in which each code was chosen once, by itself: a start from `kmeans` is `Averages.of(kmeans(z,
        codes, key=key))`.
        """
        sums = widen(codebook)
        return cls(jnp.ones(len(codebook), sums.dtype), sums)

    def codebook(self, epsilon: float) -> Float[Array, "codes dim"]:
        """Sums by counts, which Laplace's smoothing with `epsilon` keeps above zero."""
        total = jnp.sum(self.counts)
        counts = (self.counts + epsilon) / (total + len(self.counts) * epsilon) * total
        return self.sums / counts[:, None]


class EMAQuantizer(eqx.Module, OverBatch):
    """As `VectorQuantizer`, with a codebook that is no parameter: each code is the moving average of the vectors that
    choose it.

    Called as `quantized, state = quantizer(z, state)`; vectors are quantised by the codebook as it was before.
    `distance` is `commitment |z - sg(e)|²`, as the codebook needs no loss. Over a batch of which all share one
    codebook: `jax.vmap(quantizer, in_axes=(0, None), out_axes=(0, None), axis_name="batch")` with `axis_name="batch"`.

    Args:
        codes: number of codes.
        dim: size of each.
        decay: of the averages, per call; 0.99 in the paper.
        epsilon: of the counts' smoothing.
        commitment: weight of the encoder's loss; 0.25 in the paper.
        temperature: of the soft assignments.
        axis_name: the mapped and mesh axes over which counts and sums are added up, in one exchange, inside
            `jax.shard_map` with and without `check_vma`; `eqxgen.nn.synchronised` adds mesh axes to a whole model.
        estimator: how the gradient passes from codes to vectors.
    """

    start: Float[Array, "codes dim"]
    inference: bool
    decay: float = eqx.field(static=True)
    epsilon: float = eqx.field(static=True)
    commitment: float = eqx.field(static=True)
    temperature: float = eqx.field(static=True)
    axis_name: tuple[str, ...] = eqx.field(static=True)
    estimator: Estimator = eqx.field(static=True)

    def __init__(
        self,
        codes: int,
        dim: int,
        *,
        decay: float = 0.99,
        epsilon: float = 1e-5,
        commitment: float = 0.25,
        temperature: float = 0.01,
        axis_name: str | tuple[str, ...] | None = None,
        estimator: Estimator = straight_through,
        key: PRNGKeyArray,
    ):
        _check.positive(codes=codes, dim=dim)
        _check.rate(decay=decay)
        _check.above_zero(epsilon=epsilon, temperature=temperature)
        self.start = draw_codebook(codes, dim, key=key)
        self.decay, self.epsilon, self.commitment, self.temperature = decay, epsilon, commitment, temperature
        self.axis_name = (axis_name,) if isinstance(axis_name, str) else tuple(axis_name or ())
        self.estimator, self.inference = estimator, False

    @property
    def codes(self) -> int:
        return self.start.shape[0]

    @property
    def dim(self) -> int:
        return self.start.shape[1]

    def init_state(self) -> Averages:
        """A codebook drawn as `VectorQuantizer`'s."""
        return Averages.of(self.start)

    def __call__(
        self,
        z: Float[Array, "*leading dim"],
        state: Averages,
        *,
        weight: Float[Array, ""] | None = None,
        key: PRNGKeyArray | None = None,
        inference: bool | None = None,
    ) -> tuple[Quantized, Averages]:
        """The codes of the vectors, and the averages after them.

        Args:
            weight: of these vectors in the averages: 0 for an example that is padding, else 1.
        """
        _check.last_axis(z, "dim", self.dim)
        state = jax.lax.stop_gradient(state)
        quantized = quantise(
            z,
            state.codebook(self.epsilon),
            learn=0.0,
            commitment=self.commitment,
            temperature=self.temperature,
            estimator=self.estimator,
        )
        quiet = self.inference if inference is None else inference
        return quantized, state if quiet else self._updated(
            state, jax.lax.stop_gradient(flat(z)), quantized.ids.reshape(-1), weight
        )

    def nearest(self, z: Float[Array, "*leading dim"], state: Averages) -> Int[Array, "*leading"]:
        """The ids alone."""
        return find_nearest(z, state.codebook(self.epsilon))

    def lookup(self, ids: Int[Array, "*leading"], state: Averages) -> Float[Array, "*leading dim"]:
        """The codes of some ids; as `Embedding`, ids out of range are an error, or NaN inside a compiled program."""
        return rows(state.codebook(self.epsilon), ids)

    def _updated(
        self, state: Averages, z: Float[Array, "n dim"], ids: Int[Array, " n"], weight: Float[Array, ""] | None
    ) -> Averages:
        new = (count_codes(ids, self.codes), jnp.zeros_like(state.sums).at[ids].add(z))
        if weight is not None:
            new = (weight * new[0], weight * new[1])
        new = Averages(*batch_sum([x.astype(state.sums.dtype) for x in new], self.axis_name))
        some = jnp.sum(new.counts) > 0
        return jax.tree.map(
            lambda old, new: jnp.where(some, self.decay * old + (1 - self.decay) * new, old), state, new
        )


def restart_rare_codes(state: Averages, z: Float[Array, "n dim"], *, least: float = 2.0, key: PRNGKeyArray) -> Averages:
    """Every code whose count is below `least` put onto a vector drawn from `z`, as if chosen `least` times; the others
    stay.
    """
    rare = state.counts < least
    sums = jnp.where(rare[:, None], least * drawn(z, len(state.counts), key=key), state.sums)
    return Averages(jnp.where(rare, least, state.counts), sums)
