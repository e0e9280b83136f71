"""Weights of the squared error of x_0, by level: one loss for every prediction.

    x0              1
    simple, snr     SNR, the squared error of the noise (Ho et al. 2020, arXiv:2006.11239, equation 14)
    truncated_snr   max(SNR, 1) (Salimans and Ho 2022, arXiv:2202.00512, section 4)
    min_snr         min(SNR, γ) (Hang et al. 2023, arXiv:2303.09556)
    soft_min_snr    SNR γ / (SNR + γ) (Crowson et al. 2024, arXiv:2401.11605)
    p2              SNR / (1 + SNR)^γ (Choi et al. 2022, arXiv:2204.00227)
    edm             SNR + 1 / σ_data², the squared error of EDM's F (Karras et al. 2022, arXiv:2206.00364, table 1)
    v               1 / max(sigma, floor)²: the squared error of the velocity of a flow, and of v where alpha² + sigma²
                    = 1; with a prediction of x_0 the loss of Li and He 2025, arXiv:2511.13720
    uncertainty     edm, over a learned variance (Karras et al. 2024, arXiv:2312.02696, equation 21)

SNR = (alpha / sigma)².
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from eqxgen.configs.diffusion import DiffusionLoss
from eqxgen.diffusion.schedules import Level
from eqxgen.diffusion.views import SIGMA_DATA, divisor

Weight = Callable[[Level], Float[Array, "*shape"]]


def _edm(level: Level, sigma_data: float) -> Float[Array, "*shape"]:
    return _snr(level) + 1 / sigma_data**2


def _snr(level: Level) -> Float[Array, "*shape"]:
    return jnp.square(level.alpha / divisor(level.sigma))


def weight_of(rules: DiffusionLoss, sigma_data: float = SIGMA_DATA) -> Weight:
    """The weight that a config names, as a function of the level.

    Args:
        sigma_data: deviation of the data, of edm and uncertainty.
    """
    gamma, floor = rules.gamma, rules.floor
    weights: dict[str, Weight] = {
        "x0": lambda level: jnp.ones_like(level.alpha),
        "simple": _snr,
        "snr": _snr,
        "truncated_snr": lambda level: jnp.maximum(_snr(level), 1),
        "min_snr": lambda level: jnp.minimum(_snr(level), gamma),
        "soft_min_snr": lambda level: gamma * (snr := _snr(level)) / (snr + gamma),
        "p2": lambda level: (snr := _snr(level)) / (1 + snr) ** gamma,
        "edm": lambda level: _edm(level, sigma_data),
        "v": lambda level: 1 / jnp.square(jnp.maximum(level.sigma, floor)),
        "uncertainty": lambda level: _edm(level, sigma_data),
    }
    return weights[rules.weight]
