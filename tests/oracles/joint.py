"""diffusers' block of Stable Diffusion 3, small and with drawn weights."""

import json

import numpy as np

from tests.oracles._drawn import redraw

CASES = {"block": {}, "norms of queries": {"qk_norm": "rms_norm"}, "last block": {"context_pre_only": True}}
SIZES = {"dim": 16, "num_attention_heads": 2, "attention_head_dim": 8}


def cases():
    import torch
    from diffusers.models.attention import JointTransformerBlock

    found = {}
    for case, options in CASES.items():
        model = JointTransformerBlock(**SIZES, **options).eval()
        shapes = redraw(model)
        rng = np.random.default_rng(0)
        x, text = (rng.normal(size=(2, count, 16)).astype(np.float32) for count in (5, 3))
        condition = rng.normal(size=(2, 16)).astype(np.float32)
        with torch.no_grad():
            made, out = model(*map(torch.from_numpy, (x, text, condition)))
        found[case] = {
            "options": np.asarray(json.dumps(options)),
            "shapes": shapes,
            "x": x,
            "text": text,
            "condition": condition,
            "out": out.numpy(),
            "text_out": text if made is None else made.numpy(),
        }
    return found
