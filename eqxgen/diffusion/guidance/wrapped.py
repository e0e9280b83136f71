"""The base of denoisers that are made of another."""

from typing import Any

import equinox as eqx
from jaxtyping import Array, Float

from eqxgen.diffusion.solvers.driver import cost


class Wrapped(eqx.Module):
    """A denoiser of the schedule and, unless it says otherwise, of the passes of the one that it holds."""

    denoiser: Any

    @property
    def schedule(self) -> Any:
        return self.denoiser.schedule

    def evaluations(self, t: Float[Array, ""]) -> Any:
        """Passes of the network at a time."""
        return cost(self.denoiser, t)
