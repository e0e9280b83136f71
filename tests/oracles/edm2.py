"""EDM2's U-Net, small and with drawn weights. EQXGEN_EDM2 names a checkout of github.com/NVlabs/edm2."""

import json
import os
import sys

import numpy as np

from tests.oracles._drawn import redraw

CONFIG = {
    "img_resolution": 8,
    "img_channels": 3,
    "label_dim": 5,
    "use_fp16": False,
    "model_channels": 8,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [4],
    "channels_per_head": 8,
}
CONFIGS = {
    "EDM2": CONFIG,
    "EDM2 without classes": CONFIG | {"label_dim": 0, "channel_mult": [1, 1, 2], "num_blocks": 2},
}


def cases():
    if "EQXGEN_EDM2" in os.environ:
        sys.path.insert(0, os.environ["EQXGEN_EDM2"])
    import torch
    from training.networks_edm2 import Precond

    found = {}
    for case, options in CONFIGS.items():
        torch.manual_seed(0)
        model = Precond(**options).eval()
        shapes = redraw(model)
        rng = np.random.default_rng(0)
        x, noise = rng.normal(size=(2, 8, 8, 3)).astype(np.float32), np.array([-0.7, 0.4], np.float32)
        hot = np.eye(6, 5, dtype=np.float32)[[3, 5]]  # the second has no class
        labels = torch.from_numpy(hot) if options["label_dim"] else None
        with torch.no_grad():
            out = model.unet(torch.from_numpy(x.transpose(0, 3, 1, 2)), torch.from_numpy(noise), labels).numpy()
            variance = model.logvar_linear(model.logvar_fourier(torch.from_numpy(noise))).numpy()
        buffers = {name: b.numpy() for name, b in model.named_buffers() if name.endswith(("freqs", "phases"))}
        found[case] = {
            "config": np.asarray(json.dumps(options)),
            "shapes": shapes,
            "x": x,
            "noise": noise,
            "out": out.transpose(0, 2, 3, 1),
            "log_variance": variance[:, 0],
            **{f"buffer.{name}": array for name, array in buffers.items()},
        }
    return found
