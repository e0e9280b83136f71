"""The base of solvers without memory that may draw noise."""

import equinox as eqx
from jaxtyping import Array, Float

from eqxgen.diffusion.solvers.driver import number


class Renewed(eqx.Module):
    """A solver of one step whose noise is renewed by `eta`; None: deterministic, without a key.

    Raises:
        ValueError: eta is out of range.
    """

    eta: Float[Array, ""] | None = eqx.field(
        default=None, converter=lambda eta: None if eta is None else number(eta, "eta", 0, 1)
    )

    @property
    def stochastic(self) -> bool:
        return self.eta is not None

    def init(self, x: Float[Array, "*shape"]) -> None:
        return None
