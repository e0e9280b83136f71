"""Solvers: small steppers of one driver, `sample`.

Euler            order 1, 1 evaluation: Euler's of EDM and flow, DDIM without noise, DPM-Solver++ 1
DDIM             order 1, 1: fresh noise by eta; `ancestral` is eta 1
DDPM             order 1, 1: the posterior with small, large or learned variance
Heun             order 2, 2: EDM's
Churn            adds noise before a step of Heun's or another: EDM's stochastic sampler
DPM2             order 2, 2: DPM-Solver-2, and its ancestral form by eta
DPMSolver2S      order 2, 2: DPM-Solver++ 2S, and its SDE form by eta
DPMSolverMulti   order 1 to 3, 1: DPM-Solver++ 2M and 3M, and their SDE forms by eta
UniPC            order p + 1, 1: predictor and corrector
LMS, DEIS        order 1 to 4, 1: linear multistep in sigma / alpha, exponential in its logarithm
PNDM, IPNDM      1: multistep with the weights of equal steps
RK4, RK45        order 4 and 5, 4 and 6: Runge-Kutta, of fixed and of adaptive steps
FlowEuler        order 1, 1: in the time of the schedule
FlowHeun         order 2, 2: in the time of the schedule
AverageVelocity  1: of models with two times
Consistency      1: x_0 with noise drawn anew, of consistency models
"""

from eqxgen.diffusion.solvers.adams import DEIS, IPNDM, LMS, PNDM
from eqxgen.diffusion.solvers.churn import Churn
from eqxgen.diffusion.solvers.dpmsolver import DPMSolverMulti
from eqxgen.diffusion.solvers.driver import Context, Sample, Solver, cost, prior, sample
from eqxgen.diffusion.solvers.few_step import AverageVelocity, Consistency
from eqxgen.diffusion.solvers.first_order import DDIM, DDPM, Euler, ancestral
from eqxgen.diffusion.solvers.interval import Interval
from eqxgen.diffusion.solvers.noise import Brownian, PerStep
from eqxgen.diffusion.solvers.runge_kutta import RK4, RK45
from eqxgen.diffusion.solvers.two_stage import DPM2, DPMSolver2S, FlowEuler, FlowHeun, Heun
from eqxgen.diffusion.solvers.unipc import UniPC

__all__ = [
    "DDIM",
    "DDPM",
    "DEIS",
    "DPM2",
    "IPNDM",
    "LMS",
    "PNDM",
    "RK4",
    "RK45",
    "AverageVelocity",
    "Brownian",
    "Churn",
    "Consistency",
    "Context",
    "DPMSolver2S",
    "DPMSolverMulti",
    "Euler",
    "FlowEuler",
    "FlowHeun",
    "Heun",
    "Interval",
    "PerStep",
    "Sample",
    "Solver",
    "UniPC",
    "ancestral",
    "cost",
    "prior",
    "sample",
]
