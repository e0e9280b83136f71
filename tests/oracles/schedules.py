"""diffusers' noise schedules: levels, noised examples and velocities of every kind of betas, EDM's preconditioning and
the flow's path.
"""

import numpy as np

from tests.oracles import Cases

# Our name of the betas, diffusers' options.
BETAS = {
    "linear": {"beta_schedule": "linear"},
    "linear of 7 steps": {"beta_schedule": "linear", "num_train_timesteps": 7, "beta_start": 0.05, "beta_end": 0.4},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "sigmoid": {"beta_schedule": "sigmoid"},
    "linear, zero terminal": {"beta_schedule": "linear", "rescale_betas_zero_snr": True},
    "scaled_linear, zero terminal": {
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "rescale_betas_zero_snr": True,
    },
}
SIGMAS = (0.002, 0.07, 0.5, 3.3, 80.0)


def cases() -> Cases:
    import torch
    from diffusers import DDPMScheduler, EDMEulerScheduler, FlowMatchEulerDiscreteScheduler

    generator = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=generator)
    found: Cases = {}
    for name, options in BETAS.items():
        scheduler = DDPMScheduler(**options)
        steps = scheduler.config["num_train_timesteps"]
        chosen = torch.tensor([0, 1, steps // 3, steps - 2, steps - 1])
        x0, noise = draw(5, 3), draw(5, 3)
        found[name] = {
            "betas": scheduler.betas.numpy()[:: max(1, steps // 50)],
            "level": scheduler.alphas_cumprod.numpy()[:: max(1, steps // 50)],
            "steps": chosen.numpy(),
            "x0": x0.numpy(),
            "noise": noise.numpy(),
            "x": scheduler.add_noise(x0, noise, chosen).numpy(),
            "velocity": scheduler.get_velocity(x0, noise, chosen).numpy(),
        }
    edm = EDMEulerScheduler(sigma_data=0.6)
    sigma, x, output = torch.tensor(SIGMAS)[:, None], draw(5, 3), draw(5, 3)
    found["edm"] = {
        "x": x.numpy(),
        "output": output.numpy(),
        "input": edm.precondition_inputs(x, sigma).numpy(),
        "noise": np.asarray([float(edm.precondition_noise(s)) for s in sigma[:, 0]], np.float32),
        "x0": edm.precondition_outputs(x, output, sigma).numpy(),
    }
    flow = FlowMatchEulerDiscreteScheduler()
    flow.set_timesteps(7)
    x0, noise = draw(7, 3), draw(7, 3)
    found["flow"] = {
        "t": flow.sigmas[:7].numpy(),
        "x0": x0.numpy(),
        "noise": noise.numpy(),
        "x": flow.scale_noise(x0, flow.timesteps, noise).numpy(),
    }
    return found
