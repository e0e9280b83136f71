"""Autoencoders of the library diffusers, small and with drawn weights: their latents and reconstructions."""

import json

import numpy as np

from tests.oracles._drawn import redraw

CONFIGS = {
    "AutoencoderKL": {
        "block_out_channels": [8, 12, 16],
        "down_block_types": ["DownEncoderBlock2D"] * 3,
        "up_block_types": ["UpDecoderBlock2D"] * 3,
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "latent_channels": 3,
    },
    "AutoencoderKL without projections": {
        "in_channels": 1,
        "out_channels": 1,
        "block_out_channels": [6, 6],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "layers_per_block": 2,
        "norm_num_groups": 2,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "mid_block_add_attention": False,
    },
    "VQModel": {
        "block_out_channels": [8, 16],
        "down_block_types": ["DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
        "up_block_types": ["AttnUpDecoderBlock2D", "UpDecoderBlock2D"],
        "layers_per_block": 2,
        "norm_num_groups": 4,
        "latent_channels": 5,
        "num_vq_embeddings": 11,
        "vq_embed_dim": 6,
    },
    "VQModel without attention in the middle": {
        "block_out_channels": [8, 12],
        "down_block_types": ["AttnDownEncoderBlock2D", "DownEncoderBlock2D"],
        "up_block_types": ["UpDecoderBlock2D", "AttnUpDecoderBlock2D"],
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "latent_channels": 5,
        "num_vq_embeddings": 11,
        "mid_block_add_attention": False,
    },
}


def cases():
    import torch
    from diffusers import AutoencoderKL, VQModel

    found = {}
    for case, config in CONFIGS.items():
        kind = case.split()[0]
        model = (AutoencoderKL if kind == "AutoencoderKL" else VQModel)(**config).eval()
        shapes = redraw(model)
        channels = config.get("in_channels", 3)
        image = np.random.default_rng(0).uniform(-1, 1, (2, 20, 12, channels)).astype(np.float32)
        x = torch.from_numpy(image.transpose(0, 3, 1, 2))
        with torch.no_grad():
            if kind == "AutoencoderKL":
                posterior = model.encode(x).latent_dist
                parts = {"mean": posterior.mean, "log_variance": posterior.logvar, "divergence": posterior.kl()}
                made = model.decode(posterior.mean).sample
            else:
                latents = model.encode(x).latents
                parts = {"latents": latents, "ids": model.quantize(latents)[2][2].reshape(len(x), *latents.shape[2:])}
                made = model.decode(latents).sample
        arrays = {name: part.numpy() for name, part in (parts | {"image": made}).items()}
        last = {n: np.moveaxis(a, 1, -1) if a.ndim == 4 else a for n, a in arrays.items()}
        found[case] = {"config": np.asarray(json.dumps({"_class_name": kind, **config})), "shapes": shapes} | last
        found[case]["input"] = image
    return found
