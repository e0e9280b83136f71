"""ADM of guided-diffusion, its upsampler and its classifier, small and with drawn weights. EQXGEN_GUIDED names a
checkout of github.com/openai/guided-diffusion.
"""

import json
import os
import sys

import numpy as np

from tests.oracles._drawn import redraw

SMALL = {
    "image_size": 8,
    "in_channels": 3,
    "model_channels": 32,
    "num_res_blocks": 1,
    "channel_mult": [1, 2],
    "attention_resolutions": [2],
    "num_head_channels": 16,
    "use_scale_shift_norm": True,
    "resblock_updown": True,
}
CONFIGS = {
    "ADM": SMALL | {"class": "UNetModel", "out_channels": 6, "num_classes": 5},
    "ADM, convolutions between levels": SMALL
    | {
        "class": "UNetModel",
        "out_channels": 3,
        "num_head_channels": -1,
        "num_heads": 2,
        "use_scale_shift_norm": False,
        "resblock_updown": False,
        "use_new_attention_order": True,
        "channel_mult": [1, 1, 2],
    },
    "upsampler": SMALL | {"class": "SuperResModel", "out_channels": 6, "num_classes": 5},
    "classifier": SMALL | {"class": "EncoderUNetModel", "out_channels": 7, "pool": "attention"},
    "classifier, pooled by the mean": SMALL | {"class": "EncoderUNetModel", "out_channels": 7, "pool": "adaptive"},
}


def cases():
    if "EQXGEN_GUIDED" in os.environ:
        sys.path.insert(0, os.environ["EQXGEN_GUIDED"])
    import torch
    from guided_diffusion import unet

    found = {}
    for case, options in CONFIGS.items():
        options = dict(options)
        kind = options.pop("class")
        model = getattr(unet, kind)(**options).eval()
        shapes = redraw(model)
        rng = np.random.default_rng(0)
        x, low = (rng.normal(size=(2, side, side, 3)).astype(np.float32) for side in (8, 4))
        time, label = np.array([3, 977]), np.array([2, 4])
        nchw = lambda array: torch.from_numpy(array.transpose(0, 3, 1, 2))
        with torch.no_grad():
            more = {"y": torch.from_numpy(label)} if "num_classes" in options else {}
            more |= {"low_res": nchw(low)} if kind == "SuperResModel" else {}
            out = model(nchw(x), torch.from_numpy(time), **more).numpy()
        found[case] = {
            "config": np.asarray(json.dumps({"class": kind, **options})),
            "shapes": shapes,
            "x": x,
            "low": low,
            "time": time,
            "label": label,
            "out": out.transpose(0, 2, 3, 1) if out.ndim == 4 else out,
        }
    return found
