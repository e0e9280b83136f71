"""Vision models of the library transformers, small and with drawn weights; torch's bicubic interpolation, and its
multi-head attention as a pooling.
"""

import json

import numpy as np

from tests.oracles._drawn import redrawn

SMALL = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "image_size": 12, "patch_size": 4}
PLAIN = {**SMALL, "intermediate_size": 40}
TEXT = {
    "vocab_size": 30,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 9,
}
DECODER = {
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 20,
}
GELU = {"hidden_act": "gelu"}
MODELS = {
    "ViT, classifier": ("ViTForImageClassification", PLAIN | {"num_labels": 5}),
    "ViT, wide images of one channel": (
        "ViTForImageClassification",
        PLAIN | {"image_size": (8, 16), "num_channels": 1, "layer_norm_eps": 1e-6},
    ),
    "ViT, pooler": ("ViTModel", PLAIN | {"hidden_act": "gelu_pytorch_tanh"}),
    "DINOv2, SwiGLU": ("Dinov2Model", SMALL | {"use_swiglu_ffn": True, "image_size": 20}),
    "DINOv2, classifier": ("Dinov2ForImageClassification", SMALL | {"mlp_ratio": 2, "layerscale_value": 0.5}),
    "DINOv2, registers": ("Dinov2WithRegistersForImageClassification", SMALL | {"num_register_tokens": 3}),
    "CLIP, largest id": (
        "CLIPModel",
        {"text_config": TEXT | {"eos_token_id": 2}, "vision_config": PLAIN, "projection_dim": 10},
    ),
    "CLIP, first end, exact GELU": (
        "CLIPModel",
        {
            "text_config": TEXT | {"eos_token_id": 29} | GELU,
            "vision_config": PLAIN | {"image_size": 16} | GELU,
            "projection_dim": 12,
        },
    ),
    "SigLIP": ("SiglipModel", {"text_config": TEXT | {"projection_size": 24}, "vision_config": PLAIN}),
    "ViT-MAE": ("ViTMAEForPreTraining", PLAIN | DECODER | {"norm_pix_loss": True, "mask_ratio": 0.6}),
    "ResNet, basic": (
        "ResNetForImageClassification",
        {"embedding_size": 6, "hidden_sizes": [6, 10], "depths": [1, 2], "layer_type": "basic"},
    ),
    "ResNet, bottleneck": (
        "ResNetForImageClassification",
        {"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [2, 1], "layer_type": "bottleneck", "num_labels": 3},
    ),
    "ResNet, strides of the paper": (
        "ResNetForImageClassification",
        {
            "embedding_size": 8,
            "hidden_sizes": [8, 16],
            "depths": [1, 1],
            "layer_type": "bottleneck",
            "downsample_in_first_stage": True,
            "downsample_in_bottleneck": True,
        },
    ),
}
SIZES = {"DINOv2": (28, 12), "ResNet": (21, 13)}
"""Sides of the images where they are not the config's."""


def ids() -> np.ndarray:
    """Texts whose largest id comes once, twice, at the end, and before others."""
    found = np.random.default_rng(1).integers(3, 28, (4, 7))
    found[0, 3] = found[1, 6] = found[2, 2] = found[2, 4] = found[3, 5] = 29
    return found


def cases():
    import torch

    found = {name: _answers(name, *row) for name, row in MODELS.items()}
    table = np.random.default_rng(3).normal(size=(5, 7, 4)).astype(np.float32)
    found["bicubic"] = {"table": table}
    for rows, columns in ((9, 4), (5, 6), (2, 21)):
        for antialias in (False, True):
            out = torch.nn.functional.interpolate(
                torch.from_numpy(table.transpose(2, 0, 1))[None],
                size=(rows, columns),
                mode="bicubic",
                align_corners=False,
                antialias=antialias,
            )[0]
            found["bicubic"][f"{rows} {columns} {int(antialias)}"] = out.numpy().transpose(1, 2, 0)
    return found


def _answers(name: str, kind: str, values: dict) -> dict[str, np.ndarray]:
    import torch
    import transformers

    config_class = getattr(transformers, kind).config_class
    model, files = redrawn(getattr(transformers, kind)(config_class(**values)))
    config = json.loads(str(files["config"]))
    vision = config.get("vision_config", config)
    size = vision.get("image_size", 12)
    sides = SIZES.get(name.split(",")[0], (size, size) if isinstance(size, int) else tuple(size))
    rng = np.random.default_rng(0)
    image = rng.normal(size=(2, *sides, vision.get("num_channels", 3))).astype(np.float32)
    inputs, more = {"pixel_values": torch.from_numpy(np.ascontiguousarray(image.transpose(0, 3, 1, 2)))}, {}
    if "text_config" in config:
        more["ids"] = ids()
        inputs["input_ids"] = torch.from_numpy(more["ids"])
    if kind.startswith("ViTMAE"):
        more["noise"] = rng.random((2, (sides[0] // 4) * (sides[1] // 4))).astype(np.float32)
        inputs["noise"] = torch.from_numpy(more["noise"])
    with torch.no_grad():
        out = model(**inputs)
    main = next(key for key in ("logits_per_image", "logits", "pooler_output") if getattr(out, key, None) is not None)
    if getattr(out, "loss", None) is not None:
        more |= {"mask": out.mask.numpy(), "loss": out.loss.numpy()}
    return {
        **files,
        "image": image,
        "out": getattr(out, main).numpy(),
        **more,
    }
