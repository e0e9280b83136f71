"""diffusers' schedulers, step by step, on the exact denoiser of a mixture of normals."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tests.diffusion.mixture import denoised
from tests.oracles import Cases

SHAPE = (2, 3, 2, 1)

# Class of diffusers, its options, steps, form of x: vp (alpha² + sigma² = 1), ve (alpha 1), flow (alpha + sigma = 1).
Row = tuple[str, dict[str, Any], int, str]
KARRAS = {"use_karras_sigmas": True}
SINES = [float(sine) for sine in np.sin(np.linspace(1.5, 0, 10))]
SCHEDULERS: dict[str, Row] = {
    "ddpm small": ("DDPMScheduler", {"clip_sample": False, "timestep_spacing": "leading"}, 10, "vp"),
    "ddpm large": ("DDPMScheduler", {"clip_sample": False, "variance_type": "fixed_large"}, 7, "vp"),
    "ddpm learned": ("DDPMScheduler", {"clip_sample": False, "variance_type": "learned_range"}, 10, "vp"),
    "ddim": ("DDIMScheduler", {"clip_sample": False, "timestep_spacing": "trailing"}, 8, "vp"),
    "ddim noisy": ("DDIMScheduler", {"clip_sample": False, "timestep_spacing": "leading"}, 10, "vp"),
    "euler": ("EulerDiscreteScheduler", {}, 7, "ve"),
    "euler karras": ("EulerDiscreteScheduler", KARRAS, 8, "ve"),
    "euler exponential": ("EulerDiscreteScheduler", {"use_exponential_sigmas": True}, 8, "ve"),
    "euler churned": ("EulerDiscreteScheduler", KARRAS, 7, "ve"),
    "ancestral": ("EulerAncestralDiscreteScheduler", {}, 7, "ve"),
    "heun": ("HeunDiscreteScheduler", {}, 6, "ve"),
    "heun karras": ("HeunDiscreteScheduler", KARRAS, 7, "ve"),
    "dpm2": ("KDPM2DiscreteScheduler", {}, 6, "ve"),
    "dpm2 karras": ("KDPM2DiscreteScheduler", KARRAS, 7, "ve"),
    "dpm2 ancestral": ("KDPM2AncestralDiscreteScheduler", KARRAS, 6, "ve"),
    "lms": ("LMSDiscreteScheduler", {}, 7, "ve"),
    "lms karras": ("LMSDiscreteScheduler", KARRAS, 9, "ve"),
    "1m": ("DPMSolverMultistepScheduler", {"solver_order": 1}, 6, "vp"),
    "2m": ("DPMSolverMultistepScheduler", {}, 7, "vp"),
    "2m karras": ("DPMSolverMultistepScheduler", KARRAS, 16, "vp"),
    "3m": ("DPMSolverMultistepScheduler", {"solver_order": 3}, 17, "vp"),
    "3m few": ("DPMSolverMultistepScheduler", {"solver_order": 3, **KARRAS}, 8, "vp"),
    "2m sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, 8, "vp"),
    "2s": ("DPMSolverSinglestepScheduler", {"use_exponential_sigmas": True}, 9, "vp"),
    "unipc 1": ("UniPCMultistepScheduler", {"solver_order": 1}, 7, "vp"),
    "unipc 2": ("UniPCMultistepScheduler", {}, 7, "vp"),
    "unipc 2 bh1": ("UniPCMultistepScheduler", {"solver_type": "bh1", "final_sigmas_type": "sigma_min"}, 8, "vp"),
    "unipc 3": ("UniPCMultistepScheduler", {"solver_order": 3, **KARRAS}, 9, "vp"),
    "deis 1": ("DEISMultistepScheduler", {"solver_order": 1}, 6, "vp"),
    "deis 2": ("DEISMultistepScheduler", {"timestep_spacing": "trailing"}, 8, "vp"),
    "deis 3": ("DEISMultistepScheduler", {"solver_order": 3}, 17, "vp"),
    "deis 3 few": ("DEISMultistepScheduler", {"solver_order": 3}, 9, "vp"),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": True}, 10, "vp"),
    "ipndm": ("IPNDMScheduler", {"trained_betas": SINES}, 9, "vp"),
    "edm euler": ("EDMEulerScheduler", {}, 8, "ve"),
    "edm euler churned": ("EDMEulerScheduler", {}, 9, "ve"),
    "edm 2m": ("EDMDPMSolverMultistepScheduler", {}, 8, "ve"),
    "edm 3m": ("EDMDPMSolverMultistepScheduler", {"solver_order": 3}, 16, "ve"),
    "flow euler": ("FlowMatchEulerDiscreteScheduler", {}, 7, "flow"),
    "flow euler shifted": ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, 8, "flow"),
    "flow heun": ("FlowMatchHeunDiscreteScheduler", {}, 6, "flow"),
}
CHURN = {"s_churn": 4.0, "s_tmin": 0.5, "s_tmax": 10.0, "s_noise": 1.01}
TWO_STAGES = ("heun", "dpm2", "flow heun")


def level(ratio: float, form: str) -> tuple[float, float]:
    """alpha and sigma of a ratio."""
    if form == "ve":
        return 1.0, ratio
    if np.isinf(ratio):
        return 0.0, 1.0
    norm = np.hypot(1, ratio) if form == "vp" else 1 + ratio
    return 1 / norm, ratio / norm


def cases() -> Cases:
    return {name: _run(name, *row) for name, row in SCHEDULERS.items()}


def _run(name: str, cls: str, options: dict[str, Any], steps: int, form: str) -> dict[str, np.ndarray]:
    import diffusers
    import torch

    module = __import__(f"diffusers.schedulers.{_module(cls)}", fromlist=[cls])
    scheduler = getattr(diffusers, cls)(**options)
    scheduler.set_timesteps(steps)
    ratios = _ratios(scheduler, form, steps)
    x = torch.from_numpy(level(ratios[0], form)[1] * np.random.default_rng(0).normal(size=SHAPE))
    found: dict[str, Any] = {"x": x.numpy().copy()}
    path, noises = [], []
    with _recorded(module, noises):
        for i, t in enumerate(scheduler.timesteps):
            arguments: dict[str, Any] = dict(CHURN) if "churned" in name else {}
            if name == "ddim noisy":
                arguments["eta"] = 0.7
            ratio = _ratio_now(scheduler, name, ratios, i)
            alpha, sigma = level(ratio, form)
            hat = x
            if "churned" in name:
                hat, sigma, noise = _churned(x, sigma, steps)
                noises.append(noise.numpy())
                _given[0] = noise
            x0 = torch.from_numpy(denoised(hat.numpy(), alpha, sigma, np))
            output = (hat - alpha * x0) / sigma
            if form == "flow":
                output = (x - x0) / sigma
            elif cls == "IPNDMScheduler":
                output = alpha * output - sigma * x0  # its model predicts v
            elif cls.startswith("EDM"):
                arguments |= {"pred_original_sample": x0} if cls == "EDMEulerScheduler" else {}
                output = (x0 - _skip(sigma) * x) / _out(sigma)
            elif name == "ddpm learned":
                output = torch.cat([output, torch.full_like(output, 0.4)], 1)
            x = scheduler.step(output, t, x, **arguments, return_dict=False)[0].double()
            path.append(x.numpy().copy())
    if any(word in name for word in TWO_STAGES):
        path = [*path[1::2], path[-1]]
    elif name == "pndm":
        path = path[1:]
    elif name == "2s":
        path = [*path[1::2], path[-1]]
        ratios = np.append(ratios[::2], ratios[-1])
    return found | {"ratios": ratios, "path": np.stack(path).astype(np.float32), **_stacked(noises)}


def _stacked(noises: list[np.ndarray]) -> dict[str, np.ndarray]:
    return {"noises": np.stack(noises).astype(np.float32)} if noises else {}


def _ratios(scheduler: Any, form: str, steps: int) -> np.ndarray:
    """sigma / alpha at the ends of all steps."""
    if hasattr(scheduler, "alphas_cumprod") and not hasattr(scheduler, "sigmas"):
        times = list(dict.fromkeys(scheduler.timesteps.tolist()))
        kept = scheduler.alphas_cumprod.double().numpy()[times]
        return np.append(np.sqrt((1 - kept) / kept), 0)
    if type(scheduler).__name__ == "IPNDMScheduler":
        return (scheduler.betas / scheduler.alphas).double().numpy()
    sigmas = scheduler.sigmas.double().numpy()
    sigmas = sigmas[np.append(True, np.diff(sigmas) != 0)]  # those of two stages are there twice
    with np.errstate(divide="ignore"):
        return sigmas / (1 - sigmas) if form == "flow" else sigmas


def _ratio_now(scheduler: Any, name: str, ratios: np.ndarray, i: int) -> float:
    """sigma / alpha of the evaluation that the scheduler waits for."""
    if "dpm2" in name:
        kept = scheduler.sigmas if scheduler.state_in_first_order else scheduler.sigmas_interpol
        return float(kept[i - (not scheduler.state_in_first_order and "ancestral" in name)])
    if "heun" in name:
        return ratios[(i + 1) // 2]
    return ratios[max(i - 1, 1) if name == "pndm" and i else i]


_given: list[Any] = [None]


def _churned(x: Any, sigma: float, steps: int) -> tuple[Any, float, Any]:
    """x at sigma-hat, whose noise the scheduler is then given."""
    import torch

    gamma = min(CHURN["s_churn"] / steps, 2**0.5 - 1) if CHURN["s_tmin"] <= sigma <= CHURN["s_tmax"] else 0.0
    noise = torch.randn(x.shape, dtype=torch.float64)
    hat = sigma * (1 + gamma)
    return x + noise * CHURN["s_noise"] * max(hat**2 - sigma**2, 0) ** 0.5, hat, noise


def _skip(sigma: float) -> float:
    return 0.25 / (sigma**2 + 0.25)


def _out(sigma: float) -> float:
    return 0.5 * sigma / (sigma**2 + 0.25) ** 0.5


def _module(cls: str) -> str:
    import diffusers

    return getattr(diffusers, cls).__module__.rsplit(".", 1)[1]


@contextlib.contextmanager
def _recorded(module: Any, noises: list[np.ndarray]) -> Iterator[None]:
    """Keeps the noise that a scheduler draws."""
    import torch

    torch.manual_seed(0)
    drawn: Callable | None = getattr(module, "randn_tensor", None)

    def draw(shape: Any, **options: Any) -> Any:
        if _given[0] is not None:
            return _given[0]
        noise = torch.randn(tuple(shape), dtype=torch.float64)
        noises.append(noise.numpy())
        return noise

    if drawn is not None:
        module.randn_tensor = draw
    try:
        yield
    finally:
        _given[0] = None
        if drawn is not None:
            module.randn_tensor = drawn
