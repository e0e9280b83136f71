"""The U-Net and the diffusion of Pax's example, small and with drawn weights. EQXGEN_PAX names a checkout of
github.com/NTT123/pax, whose example runs on the layers below: the package itself is of an older jax.
"""

import importlib.util
import json
import os
import sys
import types
from pathlib import Path

import numpy as np

from tests.oracles._drawn import drawn

CONFIGS = {
    "two levels": ({"dim": 8, "dim_mults": [1, 2], "channels": 3}, (4, 6)),
    "three levels": ({"dim": 12, "dim_mults": [1, 2, 3], "channels": 1, "groups": 4}, (8, 12)),
}
STEPS = 20


def cases():
    import jax

    with jax.numpy_rank_promotion("allow"):
        return _cases()


def _cases():
    example = _example(Path(os.environ.get("EQXGEN_PAX", "pax")) / "examples" / "denoising_diffusion" / "model.py")
    found = {}
    for case, (options, side) in CONFIGS.items():
        model = example.UNet(**options)
        slots = dict(_slots(model))
        shapes = {name: getattr(owner, field).shape for name, (owner, field) in slots.items()}
        for name, array in drawn(shapes).items():
            setattr(*slots[name], array)
        x = np.random.default_rng(0).normal(size=(2, *side, options["channels"])).astype(np.float32)
        time = np.array([3, 871], np.int32)
        found[case] = {
            "config": np.asarray(json.dumps(options)),
            "shapes": np.asarray(json.dumps(shapes)),
            "x": x,
            "time": time,
            "out": np.asarray(model(x, time.astype(np.float32))),
        }
    return found | {"diffusion": _diffusion(example)}


def _diffusion(example):
    """Betas, and a step from three times with a noise that is half of the image."""
    half = lambda x, t: x / 2
    model = example.GaussianDiffusion(half, image_size=4, channels=1, timesteps=STEPS)
    x = 2 * np.random.default_rng(1).normal(size=(3, 4, 4, 1)).astype(np.float32)
    time = np.array([0, 7, STEPS - 1], np.int32)
    mean, _, log_variance = model.p_mean_variance(x, time, clip_denoised=True)
    return {"betas": model.betas, "x": x, "time": time, "mean": mean, "log_variance": log_variance.reshape(-1)}


def _example(path: Path):
    """The example's module, on the layers below."""
    if not path.exists():
        raise ModuleNotFoundError("EQXGEN_PAX must name a checkout of github.com/NTT123/pax", name=str(path))
    spec = importlib.util.spec_from_file_location("pax_example", path)
    module = importlib.util.module_from_spec(spec)
    before, sys.modules["pax"] = sys.modules.get("pax"), _package()
    try:
        spec.loader.exec_module(module)
    finally:
        if before is None:
            del sys.modules["pax"]
        else:
            sys.modules["pax"] = before
    return module


def _slots(module, prefix=""):
    """Owner and field of each array, by dotted name."""
    items = module.__dict__.items() if hasattr(module, "__dict__") else enumerate(module)
    for name, value in items:
        if isinstance(value, np.ndarray):
            yield f"{prefix}{name}", (module, name)
        elif isinstance(value, list | tuple) or type(value).__module__ in (__name__, "pax_example"):
            yield from _slots(value, f"{prefix}{name}.")


def _package():
    """The layers of Pax that the example names: their arithmetic, from pax/_src/nn, with arrays of zeros."""
    import jax
    import jax.numpy as jnp

    class Module:
        def __init__(self):
            pass

    def normalised(x, axes, epsilon=1e-5):
        return (x - x.mean(axes, keepdims=True)) / jnp.sqrt(x.var(axes, keepdims=True) + epsilon)

    class Conv2D(Module):
        def __init__(self, old, new, kernel, stride=1, padding="SAME", with_bias=True):
            self.weight = np.zeros((kernel, kernel, old, new), np.float32)
            self.bias = np.zeros(new, np.float32) if with_bias else None
            self.stride = stride

        def __call__(self, x):
            y = jax.lax.conv_general_dilated(
                x, self.weight, (self.stride,) * 2, "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
            return y if self.bias is None else y + self.bias

    class Conv2DTranspose(Module):
        def __init__(self, old, new, kernel, stride=1, padding="SAME"):
            self.weight = np.zeros((kernel, kernel, new, old), np.float32)
            self.bias = np.zeros(new, np.float32)
            self.stride = stride

        def __call__(self, x):
            strides, numbers = (self.stride,) * 2, ("NHWC", "HWOI", "NHWC")
            return jax.lax.conv_transpose(x, self.weight, strides, "SAME", dimension_numbers=numbers) + self.bias

    class Linear(Module):
        def __init__(self, old, new):
            self.weight, self.bias = np.zeros((old, new), np.float32), np.zeros(new, np.float32)

        def __call__(self, x):
            return x @ self.weight + self.bias

    class GroupNorm(Module):
        def __init__(self, groups, channels):
            self.scale, self.offset, self.groups = *np.zeros((2, channels), np.float32), groups

        def __call__(self, x):
            grouped = x.reshape(*x.shape[:3], self.groups, -1)
            return normalised(grouped, (1, 2, 4)).reshape(x.shape) * self.scale + self.offset

    class LayerNorm(Module):
        def __init__(self, channels, axis, with_scale, with_offset):
            self.scale, self.offset = np.zeros((2, channels), np.float32)

        def __call__(self, x):
            return normalised(x, -1) * self.scale + self.offset

    class Sequential(Module):
        def __init__(self, *parts):
            self.parts = list(parts)

        def __call__(self, x):
            for part in self.parts:
                x = part(x)
            return x

    class Identity(Module):
        def __call__(self, x):
            return x

    class RngSeq(Module):
        def __init__(self, seed):
            self.seed = seed

    package = types.ModuleType("pax")
    for kind in (Module, Conv2D, Conv2DTranspose, Linear, GroupNorm, LayerNorm, Sequential, Identity, RngSeq):
        setattr(package, kind.__name__, kind)
    return package
