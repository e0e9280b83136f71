"""MAGE, small and with drawn weights. EQXGEN_MAGE names a checkout of github.com/LTH14/mage. Its tokenizer is left out,
and timm, omegaconf and CUDA are stood in for.
"""

import json
import os
import sys
import types

import numpy as np

from tests.oracles._drawn import drawn

CODES = 11
SIZES = {
    "wide decoder": {"embed_dim": 16, "depth": 3, "num_heads": 2, "decoder_embed_dim": 24, "decoder_depth": 2},
    "narrow decoder": {"embed_dim": 18, "depth": 1, "num_heads": 3, "decoder_embed_dim": 12, "decoder_depth": 1},
}
HEADS = {"wide decoder": 4, "narrow decoder": 2}
RATIOS = {"wide decoder": (0.5, 0.62), "narrow decoder": (0.3, 1.0)}
TOKENS = 256
USED = ("token_emb", "blocks", "norm", "decoder_embed.", "decoder_pos_embed_learned", "decoder_blocks", "decoder_norm")
"""Beginnings of the names of the arrays that the forward pass uses, and `mlm_layer`."""


def cases():
    if "EQXGEN_MAGE" in os.environ:
        sys.path[:0] = [os.environ["EQXGEN_MAGE"]]
    import torch

    _stand_in()
    import models_mage

    torch.Tensor.cuda = lambda tensor, *_, **__: tensor
    found = {}
    for case, sizes in SIZES.items():
        least, share = RATIOS[case]
        ids = torch.from_numpy(np.random.default_rng(0).integers(0, CODES, (2, TOKENS)))
        models_mage.VQModel = _tokenizer(ids)
        options = {"decoder_num_heads": HEADS[case], "mask_ratio_min": least, "mlp_ratio": 2}
        norm = lambda dim: torch.nn.LayerNorm(dim, eps=1e-6)
        model = models_mage.MaskedGenerativeEncoderViT(**sizes, **options, norm_layer=norm, in_chans=1).eval()
        shapes = {name: tuple(p.shape) for name, p in model.named_parameters() if name.startswith((*USED, "mlm_layer"))}
        with torch.no_grad():
            for name, array in drawn(shapes).items():
                model.get_parameter(name).copy_(torch.from_numpy(array))
        found[case] = {"shapes": np.asarray(json.dumps(shapes)), **_answers(model, ids, share)}
    return found


def _answers(model, ids, share: float) -> dict[str, np.ndarray]:
    import torch

    model.mask_ratio_generator = types.SimpleNamespace(rvs=lambda count: [share])
    noise = np.random.default_rng(1).permuted(np.tile(np.arange(TOKENS), (2, 1)), axis=1) / TOKENS
    noise, plain = torch.from_numpy(noise.astype(np.float32)), torch.rand
    torch.rand = lambda *_, **__: noise
    try:
        states, _, dropped, masked = model.forward_encoder(torch.zeros(2, 1, 1, 1))
    finally:
        torch.rand = plain
    logits = model.forward_decoder(states, dropped, masked)
    loss = model.forward_loss(ids, logits, masked)
    loss.backward()
    slopes = {
        f"slope of {name}": model.get_parameter(name).grad
        for name in ("token_emb.word_embeddings.weight", "norm.weight")
    }
    hidden = torch.where(masked[:, 1:].bool(), model.mask_token_label, ids)
    arrays = {"noise": noise, "states": states[:, ::19], "logits": logits[:, 1::19, :CODES], "loss": loss}
    arrays |= {"masked": masked[:, 1:] > 0, "drawn": _generating(model, hidden)[:, 1::19, :CODES]}
    arrays |= slopes | {"features": _features(model, ids)}
    return {"ids": ids.numpy(), **{name: array.detach().numpy() for name, array in arrays.items()}}


def _generating(model, hidden):
    """Logits of the loop of `gen_img_uncond.gen_image`, in which nothing is dropped."""
    import torch

    first = torch.full((len(hidden), 1), model.fake_class_label)
    tokens = torch.cat([first, hidden], dim=1)
    x = model.token_emb(tokens)
    for block in model.blocks:
        x = block(x)
    return model.forward_decoder(model.norm(x), torch.zeros_like(tokens), tokens == model.mask_token_label)


def _features(model, ids):
    """Features of `VisionTransformerMage` with average pooling, whose norm is at its start."""
    import torch

    x = model.token_emb(torch.cat([torch.full((len(ids), 1), model.fake_class_label), ids], dim=1))
    for block in model.blocks:
        x = block(x)
    return torch.nn.functional.layer_norm(x[:, 1:].mean(dim=1), x.shape[-1:], eps=1e-6)


def _tokenizer(ids):
    import torch

    class VQModel(torch.nn.Module):
        def __init__(self, **options):
            super().__init__()

        def encode(self, images):
            return torch.zeros(2, 1, 16, 16), None, (None, None, ids.clone().reshape(-1))

    return VQModel


def _stand_in() -> None:
    import torch
    from torch import nn

    class PatchEmbed(nn.Module):
        def __init__(self, side, patch, channels, dim):
            super().__init__()
            self.num_patches = (side // patch) ** 2
            self.proj = nn.Conv2d(channels, dim, patch, stride=patch)

    class Mlp(nn.Module):
        def __init__(self, in_features, hidden_features, act_layer, drop):
            super().__init__()
            self.fc1, self.act = nn.Linear(in_features, hidden_features), act_layer()
            self.fc2 = nn.Linear(hidden_features, in_features)

        def forward(self, x):
            return self.fc2(self.act(self.fc1(x)))

    # The table of sines is not used in a forward pass, and its code needs an older NumPy.
    table = lambda dim, side, cls_token: np.zeros((side**2 + cls_token, dim))
    params = types.SimpleNamespace(ddconfig={}, n_embed=CODES, embed_dim=4)
    config = types.SimpleNamespace(load=lambda path: types.SimpleNamespace(model=types.SimpleNamespace(params=params)))
    parts = {
        "timm": {},
        "timm.models": {},
        "timm.models.vision_transformer": {"PatchEmbed": PatchEmbed, "DropPath": nn.Identity, "Mlp": Mlp},
        "util": {},
        "util.pos_embed": {"get_2d_sincos_pos_embed": table},
        "omegaconf": {"OmegaConf": config},
        "taming": {},
        "taming.models": {},
        "taming.models.vqgan": {"VQModel": torch.nn.Module},
    }
    for name, members in parts.items():
        vars(sys.modules.setdefault(name, types.ModuleType(name))).update(members)
