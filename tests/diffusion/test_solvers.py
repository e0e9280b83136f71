"""Every solver against diffusers, step by step, and against definitions of EDM and k-diffusion in float64."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.diffusion.schedules import VE, Flow, Level, Schedule
from eqxgen.diffusion.solvers import (
    DDIM,
    DDPM,
    DEIS,
    DPM2,
    IPNDM,
    LMS,
    PNDM,
    Churn,
    DPMSolver2S,
    DPMSolverMulti,
    Euler,
    FlowEuler,
    FlowHeun,
    Heun,
    UniPC,
    ancestral,
    sample,
)
from tests.diffusion.mixture import Mixture
from tests.oracles import load

CHURNED = {"churn": 4.0, "low": 0.5, "high": 10.0, "noise": 1.01}

# Solver, schedule by which diffusers' numbers are ours.
ROWS = {
    "ddpm small": DDPM(),
    "ddpm large": DDPM("large"),
    "ddpm learned": DDPM("learned"),
    "ddim": DDIM(),
    "ddim noisy": DDIM(0.7),
    "euler": Euler(),
    "euler karras": Euler(),
    "euler exponential": Euler(),
    "euler churned": Churn(Euler(), **CHURNED),
    "ancestral": ancestral(),
    "heun": Heun(),
    "heun karras": Heun(),
    "dpm2": DPM2(),
    "dpm2 karras": DPM2(),
    "dpm2 ancestral": DPM2(1.0),
    "lms": LMS(data_end=False),
    "lms karras": LMS(data_end=False),
    "1m": DPMSolverMulti(1),
    "2m": DPMSolverMulti(2),
    "2m karras": DPMSolverMulti(2),
    "3m": DPMSolverMulti(3),
    "3m few": DPMSolverMulti(3),
    "2m sde": DPMSolverMulti(2, 1.0),
    "2s": DPMSolver2S(),
    "unipc 1": UniPC(1),
    "unipc 2": UniPC(2),
    "unipc 2 bh1": UniPC(2, "bh1"),
    "unipc 3": UniPC(3),
    "deis 1": DEIS(1),
    "deis 2": DEIS(2),
    "deis 3": DEIS(3),
    "deis 3 few": DEIS(3),
    "pndm": PNDM(data_end=False),
    "ipndm": IPNDM(data_end=False),
    "edm euler": Euler(),
    "edm euler churned": Churn(Euler(), **CHURNED),
    "edm 2m": DPMSolverMulti(2),
    "edm 3m": DPMSolverMulti(3),
    "flow euler": FlowEuler(),
    "flow euler shifted": Euler(),
    "flow heun": FlowHeun(),
}
VARIANCE_EXPLODING = ("euler", "ancestral", "heun", "dpm2", "lms", "edm")


class Ratio(Schedule):
    """alpha² + sigma² = 1, by sigma / alpha: t is the ratio, infinite for noise alone."""

    end = np.inf

    def __call__(self, t):
        return Level(
            jnp.where(jnp.isinf(t), 0, 1 / jnp.hypot(1.0, t)), jnp.where(jnp.isinf(t), 1, 1 / jnp.hypot(1.0, 1 / t))
        )

    def time(self, ratio):
        return jnp.asarray(ratio)


class Recorded(eqx.Module):
    """The noise of diffusers' steps."""

    noises: jax.Array

    def __call__(self, key, index, draw, interval, like):
        return self.noises[index].astype(like.dtype)


class Learned(Mixture):
    """A denoiser with the variance that the golden's model has."""

    def variance(self, x, t, condition=None, *, key=None, inference=None):
        return self(x, t), jnp.full_like(x, 0.7)


def schedule_of(name):
    form = "ve" if name.startswith(VARIANCE_EXPLODING) else "flow" if name.startswith("flow") else "vp"
    return {"ve": VE(), "flow": Flow(), "vp": Ratio()}[form]


CASES = load("solvers")


@pytest.mark.parametrize("name", ROWS)
def test_a_step_equals_that_of_diffusers(name):
    case, solver, schedule = CASES[name], ROWS[name], schedule_of(name)
    with jax.enable_x64(True):
        noises = jnp.asarray(case.get("noises", np.zeros(1)), jnp.float64)
        if "ancestral" in name or "ddpm" in name or name == "2m sde":
            noises = jnp.concatenate([noises, jnp.zeros_like(noises[:1])])  # none is drawn in the last step
        times = schedule.time(jnp.asarray(case["ratios"], jnp.float64))
        found = sample(
            Learned(schedule),
            jnp.asarray(case["x"], jnp.float64),
            times,
            jax.tree.map(lambda x: x.astype(jnp.float64), solver),
            key=jr.key(0),
            trajectory=True,
            noise=Recorded(noises),
        )
        path = np.asarray(found.trajectory)
    assert path.shape == case["path"].shape
    size = np.abs(case["path"]).reshape(len(path), -1).max(1)
    off = np.abs(path - case["path"]).reshape(len(path), -1).max(1) / np.maximum(size, 1)
    assert off.max() < 1e-5, off
