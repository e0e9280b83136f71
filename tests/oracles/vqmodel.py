"""The tokenizer of taming transformers in its own classes, small and with drawn weights. EQXGEN_TAMING names a checkout
of github.com/CompVis/taming-transformers.
"""

import os
import sys
import types
from typing import Any

import numpy as np

from tests.oracles._drawn import redraw

# 32 groups are fixed there, so that these are its smallest widths.
CONFIGS = {
    "attention at half the size": {"ch_mult": [1, 2], "num_res_blocks": 1, "attn_resolutions": [16], "z_channels": 6},
    "gray, attention everywhere": {
        "ch_mult": [1, 1, 2],
        "num_res_blocks": 2,
        "attn_resolutions": [32, 16, 8],
        "z_channels": 5,
        "in_channels": 1,
        "out_ch": 1,
    },
}
CODES, CODE_DIM, RESOLUTION = 11, 4, 32


def model(config: dict[str, Any]) -> Any:
    """Its VQModel of a configuration, without its losses and its trainer."""
    import torch

    if "EQXGEN_TAMING" in os.environ:
        sys.path.insert(0, os.environ["EQXGEN_TAMING"])
    trainer: Any = types.ModuleType("pytorch_lightning")
    trainer.LightningModule = torch.nn.Module
    command: Any = types.ModuleType("main")
    command.instantiate_from_config = lambda config: None
    sys.modules |= {"pytorch_lightning": trainer, "main": command}
    from taming.models.vqgan import VQModel

    channels = {"in_channels": 3, "out_ch": 3, "ch": 32, "resolution": RESOLUTION, "double_z": False, "dropout": 0.0}
    return VQModel(channels | config, None, CODES, CODE_DIM, sane_index_shape=True).eval()


def cases():
    import torch

    found = {}
    for name, config in CONFIGS.items():
        net = model(config)
        shapes = redraw(net)
        image = np.random.default_rng(0).uniform(-1, 1, (2, RESOLUTION, RESOLUTION, config.get("in_channels", 3)))
        x = torch.from_numpy(np.ascontiguousarray(image.transpose(0, 3, 1, 2), np.float32))
        with torch.no_grad():
            latents = net.quant_conv(net.encoder(x))
            ids = net.encode(x)[2][2]
            made, _ = net(x)
        last = {"latents": latents, "image": made}
        found[name] = {key: np.moveaxis(array.numpy(), 1, -1) for key, array in last.items()}
        found[name] |= {"input": image.astype(np.float32), "shapes": shapes, "ids": ids.numpy()}
    return found
