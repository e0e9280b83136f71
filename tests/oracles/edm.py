"""EDM's U-Nets, small and with drawn weights. EQXGEN_EDM names a checkout of github.com/NVlabs/edm."""

import json
import os
import sys

import numpy as np

from tests.oracles._drawn import redraw

SMALL = {"img_resolution": 8, "in_channels": 3, "out_channels": 3, "num_blocks": 1, "channel_mult": [1, 2]}
CONFIGS = {
    "DDPM++": {"class": "SongUNet", "label_dim": 5, "augment_dim": 9, "attn_resolutions": [4], "model_channels": 8},
    "NCSN++": {
        "class": "SongUNet",
        "label_dim": 0,
        "augment_dim": 9,
        "attn_resolutions": [8],
        "model_channels": 12,
        "channel_mult": [1, 1, 2],
        "embedding_type": "fourier",
        "encoder_type": "residual",
        "channel_mult_noise": 2,
        "resample_filter": [1, 3, 3, 1],
    },
    "ADM": {
        "class": "DhariwalUNet",
        "label_dim": 5,
        "attn_resolutions": [4, 8],
        "model_channels": 64,
        "img_resolution": 8,
    },
}


def cases():
    if "EQXGEN_EDM" in os.environ:
        sys.path.insert(0, os.environ["EQXGEN_EDM"])
    import torch
    from training import networks

    found = {}
    for case, options in CONFIGS.items():
        options = SMALL | options
        kind = options.pop("class")
        model = getattr(networks, kind)(**options).eval()
        shapes = redraw(model)
        rng = np.random.default_rng(0)
        side = options["img_resolution"]
        x = rng.normal(size=(2, side, side, 3)).astype(np.float32)
        noise = np.array([-1.3, 0.7], np.float32)
        hot = np.eye(6, 5, dtype=np.float32)[[3, 5]]  # the second has no class
        augment = rng.normal(size=(2, 9)).astype(np.float32)
        with torch.no_grad():
            labels = torch.from_numpy(hot) if options["label_dim"] else None
            more = {"augment_labels": torch.from_numpy(augment)} if options.get("augment_dim") else {}
            out = model(torch.from_numpy(x.transpose(0, 3, 1, 2)), torch.from_numpy(noise), labels, **more).numpy()
        found[case] = {
            "config": np.asarray(json.dumps({"class": kind, **options})),
            "shapes": shapes,
            "x": x,
            "noise": noise,
            "augment": augment,
            "out": out.transpose(0, 2, 3, 1),
        }
        if options.get("embedding_type") == "fourier":
            found[case]["frequencies"] = model.map_noise.freqs.numpy()
    return found
