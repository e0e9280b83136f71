"""Presets of `train.diffusion`: values of its flags by name, and what to expect of each. Imports nothing heavy."""

import dataclasses
from typing import Any

from eqxgen.configs import (
    DenoiserConfig,
    DiffusionLoss,
    DiffusionSampling,
    DiTConfig,
    FewStepLoss,
    ScheduleConfig,
    UNetConfig,
    UViTConfig,
)

from ...config.data import AugmentConfig, DataConfig
from ...config.optim import EmaConfig, OptimConfig

_EDM = DenoiserConfig(prediction="edm", schedule=ScheduleConfig(name="edm"))
_EDM_LOSS = DiffusionLoss(weight="edm", times="lognormal")
_MEANFLOW = FewStepLoss(equal=0.5, guidance=2.0, mix=0.5)
# The one step that is sampled has t = 1 and r = 0, which the papers' logit-normal times hardly ever draw.
_UNIFORM = DiffusionLoss(weight="v", times="uniform")
_EULER: dict[str, Any] = {"sampling": DiffusionSampling(steps=18, sampler="euler", grid="flow", guidance=2.0)}
_LARGER = dataclasses.replace(_EDM_LOSS, mean=0.0, stratified=True)


def _adam(learning_rate: float, warmup: int = 0) -> OptimConfig:
    """Adam without weight decay at a constant rate."""
    return OptimConfig(learning_rate=learning_rate, warmup=warmup, decay="constant", beta2=0.999, weight_decay=0.0)


def _dit(dim: int, depth: int, patch: int) -> DiTConfig:
    return DiTConfig(dim=dim, depth=depth, heads=dim // 32, hidden_dim=4 * dim, patch=patch, learn_variance=False)


def _small(name: str, steps: int, dit: DiTConfig, flip: bool = False, **changes: Any) -> dict[str, Any]:
    """EDM's preconditioning, loss and times with a small transformer."""
    values: dict[str, Any] = {
        "batch_size": 64,
        "backbone": "dit",
        "data": DataConfig(name=name, augment=AugmentConfig(flip=flip)),
        "optim": OptimConfig(learning_rate=2e-3, warmup=50, beta2=0.99, weight_decay=0.01),
        "ema": EmaConfig(half_life=2560.0, ramp=0.1),
        "denoiser": _EDM,
        "loss": dataclasses.replace(_EDM_LOSS, stratified=True),
        "dit": dit,
        "sampling": DiffusionSampling(steps=12, sampler="dpmpp_2m", guidance=2.0, sigma_max=40.0),
    }
    return {"steps": steps, **values, **changes}


def _flow(prediction: str, **loss: Any) -> dict[str, Any]:
    """A denoiser of a flow, and the distribution of its times."""
    schedule, rules = ScheduleConfig(name="flow"), DiffusionLoss(weight="v", times="logit_normal", **loss)
    return {"denoiser": DenoiserConfig(prediction=prediction, schedule=schedule), "loss": rules}


def _average(
    name: str, steps: int, dit: DiTConfig, objective: str, few_step: FewStepLoss, **changes: Any
) -> dict[str, Any]:
    """An average velocity by a transformer with two times, sampled in one step."""
    values = {
        "objective": objective,
        "few_step": few_step,
        "sampling": DiffusionSampling(steps=1, sampler="average", grid="flow"),
        **_flow("average", mean=-0.4, std=1.0),
    }
    return _small(name, steps, dataclasses.replace(dit, times=2), **values | changes)


VALUES: dict[str, dict[str, Any]] = {
    "digits": _small("digits", 1000, _dit(96, 4, 2)),
    # Geng et al. 2025, section 4.3 and table 4: power 1, guidance in the target; times and their equal half are ours.
    "digits-meanflow": _average("digits", 1500, _dit(96, 4, 2), "meanflow", _MEANFLOW, loss=_UNIFORM),
    # The paper's halves down to an eighth alone, so that an interval of 1 is drawn often in a short run.
    "digits-shortcut": _average(
        "digits",
        1800,
        _dit(64, 3, 2),
        "shortcut",
        FewStepLoss(guidance=2.0, mix=0.5, shortest=8),
        optim=OptimConfig(learning_rate=4e-3, warmup=50, beta2=0.99, weight_decay=0.01),
    ),
    # Levels to 10 rather than 80, and fewer: of the gradient of the paper's, 0.3 % come from sigma above 10.
    "digits-consistency": _small(
        "digits",
        2500,
        _dit(64, 3, 2),
        objective="consistency",
        label_dropout=0.0,
        denoiser=dataclasses.replace(_EDM, schedule=ScheduleConfig(name="edm", sigma_max=10.0)),
        loss=DiffusionLoss(times="lognormal", mean=0.0, std=1.5),
        few_step=FewStepLoss(first=4, last=32),
        sampling=DiffusionSampling(steps=2, sampler="consistency", sigma_min=0.8, sigma_max=10.0),
    ),
    # Larger images show through more noise: the mean of the levels grows with the side (Hoogeboom et al. 2023).
    "mnist": _small("mnist", 2500, _dit(128, 4, 4), loss=_LARGER),
    # One net by flow matching, by MeanFlow, and by its improved form with guidance as an input (Geng et al. 2025).
    "mnist-flow": _small("mnist", 3500, _dit(128, 4, 4), **_flow("velocity", mean=-0.4, std=1.0), **_EULER),
    "mnist-meanflow": _average("mnist", 1500, _dit(128, 4, 4), "meanflow", _MEANFLOW, loss=_UNIFORM),
    "mnist-imeanflow": _average(
        "mnist",
        1500,
        dataclasses.replace(_dit(128, 4, 4), times=2, guide=True),
        "improved_meanflow",
        FewStepLoss(equal=0.5, guidance=8.0),
        loss=_UNIFORM,
        sampling=DiffusionSampling(steps=1, sampler="average", grid="flow", guidance=2.0),
    ),
    "fashion_mnist": _small("fashion_mnist", 4000, _dit(128, 4, 4), loss=_LARGER, flip=True),
    # Ho et al. 2020, appendix B: no classes, 800,000 steps of Adam at 2e-4, average 0.9999.
    "cifar10": {
        "steps": 800_000,
        "batch_size": 128,
        "log_every": 100,
        "sample_every": 20_000,
        "checkpoint_every": 5000,
        "conditional": False,
        "data": DataConfig(name="cifar10", augment=AugmentConfig(flip=True)),
        "optim": _adam(2e-4, 5000),
        "ema": EmaConfig(decay=0.9999),
        "sampling": DiffusionSampling(steps=50, sampler="ddim", grid="linspace"),
    },
    # Karras et al. 2022, table 7 and appendix F: 200 M images, rise of the learning rate over 10 M, half-life 0.5 M.
    "cifar10-edm": {
        "steps": 200_000_000 // 512,
        "batch_size": 512,
        "log_every": 100,
        "sample_every": 10_000,
        "checkpoint_every": 5000,
        "label_dropout": 0.0,
        "non_leaking": 0.12,
        "data": DataConfig(name="cifar10"),
        "optim": _adam(1e-3, 10_000_000 // 512),
        "ema": EmaConfig(half_life=500_000.0, ramp=0.05),
        "denoiser": _EDM,
        "loss": _EDM_LOSS,
        "unet": UNetConfig.ddpmpp(),
    },
    # The same, table 7: 2,500 M images, half-life 50 M, dropout 0.1, and the stochastic sampler's numbers of table 5.
    "imagenet64-edm": {
        "steps": 2_500_000_000 // 4096,
        "batch_size": 4096,
        # 32 images at a time on each of 8 devices: 64 do not compile for v5e:2x4 with fsdp=8, whose 15.75 GiB are less
        # than the 16.68 GiB of temporaries.
        "accumulate": 16,
        "precision": "bfloat16",
        "log_every": 100,
        "sample_every": 10_000,
        "checkpoint_every": 5000,
        "label_dropout": 0.0,
        "data": DataConfig(name="./imagenet/train", image_size=64, augment=AugmentConfig(flip=True)),
        "optim": _adam(1e-4, 10_000_000 // 4096),
        "ema": EmaConfig(half_life=50_000_000.0, ramp=0.05),
        "denoiser": _EDM,
        "loss": _EDM_LOSS,
        "unet": dataclasses.replace(UNetConfig.edm_adm(), remat=True),
        "sampling": DiffusionSampling(steps=256, sampler="churn"),
    },
    # Peebles and Xie 2023, section 4 and the original code: AdamW 1e-4 constant without decay, average 0.9999, latents
    # of Stable Diffusion, learned variance; guidance of three channels in the released sampler.
    "imagenet256-dit": {
        "steps": 7_000_000,
        "batch_size": 256,
        "precision": "bfloat16",
        "log_every": 100,
        "sample_every": 10_000,
        "checkpoint_every": 5000,
        "backbone": "dit",
        "autoencoder": "./sd-vae-ft-ema",
        "data": DataConfig(name="./imagenet/train", image_size=256, augment=AugmentConfig(flip=True)),
        "optim": _adam(1e-4),
        "ema": EmaConfig(decay=0.9999),
        "loss": DiffusionLoss(variance=0.001),
        "dit": dataclasses.replace(DiTConfig.xlarge(), remat=True),
        "sampling": DiffusionSampling(
            steps=250, sampler="ddpm", grid="linspace", variance="learned", guidance=1.5, channels=3
        ),
    },
    # Text Brush's U-ViT, noise and DDIM, with betas from 1e-4, where it has 1e-3; its optimisation is not known to us.
    "textbrush": _small(
        "mnist",
        5000,
        _dit(128, 4, 4),
        backbone="uvit",
        uvit=UViTConfig.textbrush(),
        denoiser=DenoiserConfig(),
        loss=DiffusionLoss(),
        sampling=DiffusionSampling(steps=50, sampler="ddim", grid="trailing", guidance=2.0),
    ),
    # Pax's U-Net, cosine schedule, L1 distance and rate; batch, warm-up and average are ours. Its sampler is DDPM of
    # 1,000 steps with x_0 clipped, `DDPM` of `Clipped` here.
    "celeba64": {
        "steps": 100_000,
        "batch_size": 64,
        "log_every": 100,
        "sample_every": 5000,
        "checkpoint_every": 5000,
        "backbone": "pax_unet",
        "conditional": False,
        "data": DataConfig(name="./celeba", image_size=64, augment=AugmentConfig(flip=True)),
        "optim": _adam(1e-4, 1000),
        "ema": EmaConfig(decay=0.9999),
        "denoiser": DenoiserConfig(schedule=ScheduleConfig(name="cosine")),
        "loss": DiffusionLoss(distance="l1"),
        "sampling": DiffusionSampling(steps=50, sampler="ddim", grid="trailing"),
    },
}

ABOUT = {
    "digits": "0.72 M parameters; 109 s of one CPU core; sample_accuracy 0.971, recall_judge 0.82",
    "digits-meanflow": "0.76 M parameters; 6.4 minutes of CPU time; sample_accuracy 1.0 with 1 evaluation",
    "digits-shortcut": "0.27 M parameters; 160 s of one CPU core; sample_accuracy 0.999 with 1 evaluation",
    "digits-consistency": "0.25 M parameters; 150 s of one CPU core; sample_accuracy 0.954 with 2 evaluations",
    "mnist": "1.28 M parameters; 13 minutes on 2 CPU cores; sample_accuracy 0.991, recall_judge 0.83",
    "mnist-flow": "1.28 M parameters; 3,500 steps of 64",
    "mnist-meanflow": "1.32 M parameters; 17 minutes on 2 CPU cores; sample_accuracy 0.999 with 1 evaluation, blurred",
    "mnist-imeanflow": "1.47 M parameters; 1,500 steps of 64",
    "fashion_mnist": "1.28 M parameters; 4,000 steps of 64",
    "cifar10": "35.7 M parameters; 800,000 steps of 128, for a GPU; the paper's FID is 3.17",
    "cifar10-edm": "56.3 M parameters; 390,625 steps of 512, for GPUs; the paper's FID is 1.79 with 35 evaluations",
    "imagenet64-edm": "296 M parameters; 610,351 steps of 4,096, for a TPU slice; the paper's FID is 1.36",
    "imagenet256-dit": "675 M parameters; 7 M steps of 256, for a TPU slice; the paper's FID is 2.27",
    "textbrush": "1.50 M parameters; 5,000 steps of 64",
    "celeba64": "29.8 M parameters; 100,000 steps of 64, for a GPU",
}
"""Size, time and the number to expect of each preset, where it was measured."""
