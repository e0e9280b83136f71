"""DiT of the library diffusers, small and with drawn weights."""

import json

import numpy as np

from tests.oracles._drawn import redraw

CONFIG = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 3,
    "out_channels": 6,
    "num_layers": 3,
    "sample_size": 8,
    "patch_size": 2,
    "num_embeds_ada_norm": 7,
    "norm_type": "ada_norm_zero",
}


def cases():
    import torch
    from diffusers import DiTTransformer2DModel

    found = {}
    for case, more in {"defaults": {}, "one epsilon": {"norm_eps": 1e-6, "out_channels": 3, "patch_size": 4}}.items():
        config = CONFIG | more
        model = DiTTransformer2DModel(**config).eval()
        shapes = redraw(model)
        for block in model.transformer_blocks[1:]:  # published files repeat the embeddings of the first
            block.norm1.emb.load_state_dict(model.transformer_blocks[0].norm1.emb.state_dict())
        rng = np.random.default_rng(0)
        x, time, label = rng.normal(size=(2, 8, 8, 3)).astype(np.float32), np.array([3, 977]), np.array([2, 7])
        with torch.no_grad():
            inputs = {"timestep": torch.from_numpy(time), "class_labels": torch.from_numpy(label)}
            out = model(torch.from_numpy(x.transpose(0, 3, 1, 2)), **inputs).sample.numpy()
        found[case] = {
            "config": np.asarray(json.dumps({"_class_name": "DiTTransformer2DModel", **config})),
            "shapes": shapes,
            "x": x,
            "time": time,
            "label": label,
            "out": out.transpose(0, 2, 3, 1),
        }
    return found
