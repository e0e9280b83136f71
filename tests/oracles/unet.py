"""U-Nets of the library diffusers, small and with drawn weights."""

import json

import numpy as np

from tests.oracles._drawn import redraw

SMALL = {"sample_size": 8, "layers_per_block": 1, "norm_num_groups": 4}
DDPM = {  # the options of google/ddpm-cifar10-32
    "freq_shift": 1,
    "flip_sin_to_cos": False,
    "downsample_padding": 0,
    "norm_eps": 1e-6,
    "attention_head_dim": None,
}
CONFIGS = {
    "DDPM": SMALL
    | DDPM
    | {
        "block_out_channels": [8, 16],
        "layers_per_block": 2,
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
    },
    "defaults": SMALL
    | {
        "in_channels": 5,
        "out_channels": 2,
        "block_out_channels": [16, 16, 32],
        "down_block_types": ["AttnDownBlock2D", "DownBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "UpBlock2D", "AttnUpBlock2D"],
        "num_class_embeds": 3,
    },
    "scales, resampling blocks": SMALL
    | {
        "in_channels": 1,
        "out_channels": 2,
        "block_out_channels": [8, 16],
        "down_block_types": ["ResnetDownsampleBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "ResnetUpsampleBlock2D"],
        "downsample_type": "resnet",
        "upsample_type": "resnet",
        "resnet_time_scale_shift": "scale_shift",
        "attn_norm_num_groups": 4,
        "attention_head_dim": 4,
    },
    "no attention": SMALL
    | {
        "block_out_channels": [4, 6],  # attention_head_dim, 8 by default, says nothing
        "down_block_types": ["DownBlock2D"] * 2,
        "up_block_types": ["UpBlock2D"] * 2,
        "add_attention": False,
        "norm_num_groups": 2,
    },
}


def cases():
    import torch
    from diffusers import UNet2DModel

    found = {}
    for case, config in CONFIGS.items():
        model = UNet2DModel(**config).eval()
        shapes = redraw(model)
        rng = np.random.default_rng(0)
        x = rng.normal(size=(2, 12, 8, config.get("in_channels", 3))).astype(np.float32)
        time, label = np.array([3, 977]), np.array([2, 0])
        with torch.no_grad():
            more = {"class_labels": torch.from_numpy(label)} if "num_class_embeds" in config else {}
            out = model(torch.from_numpy(x.transpose(0, 3, 1, 2)), torch.from_numpy(time), **more).sample.numpy()
        found[case] = {
            "config": np.asarray(json.dumps({"_class_name": "UNet2DModel", **config})),
            "shapes": shapes,
            "x": x,
            "time": time,
            "label": label,
            "out": out.transpose(0, 2, 3, 1),
        }
    return found
