"""U-ViT and LightningDiT, small and with drawn weights. EQXGEN_UVIT and EQXGEN_LIGHTNING name checkouts of
github.com/baofff/U-ViT and github.com/hustvl/LightningDiT.
"""

import json
import os
import sys
import types

import numpy as np

from tests.oracles._drawn import redraw

UVIT = {"img_size": 8, "patch_size": 2, "embed_dim": 16, "depth": 4, "num_heads": 2}
LIGHTNING = {
    "input_size": 8,
    "patch_size": 2,
    "in_channels": 3,
    "hidden_size": 48,
    "depth": 2,
    "num_heads": 4,
    "num_classes": 5,
}
CASES = {
    "U-ViT": UVIT | {"num_classes": 7},
    "U-ViT without classes": UVIT | {"qkv_bias": True, "mlp_time_embed": True, "conv": False, "patch_size": 4},
    "LightningDiT": LIGHTNING | dict.fromkeys(("use_qknorm", "use_swiglu", "use_rope", "use_rmsnorm"), True),
    "LightningDiT without norms of queries": LIGHTNING | {"use_swiglu": True, "use_rope": True, "use_rmsnorm": True},
    "LightningDiT, plain": LIGHTNING,
}


def cases():
    os.environ["TORCHDYNAMO_DISABLE"] = "1"
    sys.path[:0] = [os.environ[name] for name in ("EQXGEN_UVIT", "EQXGEN_LIGHTNING") if name in os.environ]
    import torch
    from libs.uvit import UViT

    _stand_in_for_timm()
    from models.lightningdit import LightningDiT

    found = {}
    for case, options in CASES.items():
        model = (UViT if case.startswith("U-ViT") else LightningDiT)(**options).eval()
        fixed = None if case.startswith("U-ViT") else model.pos_embed.data.clone()
        shapes = redraw(model)
        if fixed is not None:
            model.pos_embed.data = fixed
        rng = np.random.default_rng(0)
        x = rng.normal(size=(2, 8, 8, 3)).astype(np.float32)
        time, label = np.array([3.0, 977.0], np.float32), np.array([2, 5])
        more = {"y": torch.from_numpy(label)} if options.get("num_classes", -1) > 0 else {}
        with torch.no_grad():
            out = model(torch.from_numpy(x.transpose(0, 3, 1, 2)), torch.from_numpy(time), **more).numpy()
        found[case] = {
            "config": np.asarray(json.dumps(options)),
            "shapes": shapes,
            "x": x,
            "time": time,
            "label": label,
            "out": out.transpose(0, 2, 3, 1),
        }
    return found


def _stand_in_for_timm() -> None:
    """The two layers of timm that LightningDiT needs, where timm is not installed."""
    import torch
    from torch import nn

    class PatchEmbed(nn.Module):
        def __init__(self, side, patch, channels, dim, bias=True):
            super().__init__()
            self.patch_size, self.num_patches = (patch, patch), (side // patch) ** 2
            self.proj = nn.Conv2d(channels, dim, patch, stride=patch, bias=bias)

        def forward(self, x):
            return self.proj(x).flatten(2).transpose(1, 2)

    class Mlp(nn.Module):
        def __init__(self, in_features, hidden_features, act_layer, drop):
            super().__init__()
            self.fc1, self.act = nn.Linear(in_features, hidden_features), act_layer()
            self.fc2 = nn.Linear(hidden_features, in_features)

        def forward(self, x):
            return self.fc2(self.act(self.fc1(x)))

    names = ("timm", "timm.models", "timm.models.vision_transformer", "fairscale", "fairscale.nn")
    names += (
        "fairscale.nn.model_parallel",
        "fairscale.nn.model_parallel.initialize",
        "fairscale.nn.model_parallel.layers",
    )
    for name in names:
        sys.modules.setdefault(name, types.ModuleType(name))
    vars(sys.modules["timm.models.vision_transformer"]).update(PatchEmbed=PatchEmbed, Mlp=Mlp)
    sys.modules["fairscale.nn.model_parallel"].initialize = sys.modules["fairscale.nn.model_parallel.initialize"]
    layers = dict.fromkeys(("ColumnParallelLinear", "ParallelEmbedding", "RowParallelLinear"), torch.nn.Linear)
    vars(sys.modules["fairscale.nn.model_parallel.layers"]).update(layers)
