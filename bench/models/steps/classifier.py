"""Train steps of `train.classify`, a ViT and a ResNet, beside transformers' nets of the same weights in PyTorch's eager
mode, float32, on random images: cross-entropy, gradients and AdamW.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from bench.models.classifier_curves import FACTS, RATE, read, started
from bench.race import OURS, Makers, Side
from eqxgen.configs import ResNetConfig, ViTConfig
from train.engine.step import Inputs

SIDE, CLASSES = FACTS.shape[0], FACTS.classes


def makers(kind: str, torch_name: str, batch: int, tiny: bool) -> Makers:
    """Both sides of a `ViT` or a `ResNet`."""
    changes, values = (_vit if kind == "ViT" else _resnet)(tiny)
    return {
        OURS: functools.partial(_ours, kind, changes, values, batch),
        torch_name: functools.partial(_torch_eager, kind, values, batch),
    }


def _vit(tiny: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sizes for ours and for transformers."""
    dim, depth, heads = (16, 1, 2) if tiny else (192, 6, 3)
    ours = {"backbone": "vit", "vit": ViTConfig(4, dim, depth, heads, hidden_dim=4 * dim, epsilon=1e-12)}
    theirs = {
        "hidden_size": dim,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "intermediate_size": 4 * dim,
        "image_size": SIDE,
        "patch_size": 4,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    return ours, theirs


def _resnet(tiny: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    multipliers, depths, width = ((1,), (1,), 8) if tiny else ((1, 2, 4, 8), (2, 2, 2, 2), 64)
    ours = {"backbone": "resnet", "model": ResNetConfig(width, multipliers, depths=depths, stem=width)}
    widths = [width * multiplier for multiplier in multipliers]
    theirs = {"embedding_size": width, "hidden_sizes": widths, "depths": list(depths), "layer_type": "basic"}
    return ours, theirs


def _net(kind: str, values: dict[str, Any]) -> Any:
    """PyTorch's net, of the same weights at each call."""
    import torch
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(num_labels=CLASSES, **values)
    return getattr(transformers, f"{kind}ForImageClassification")(config)


def _drawn(batch: int) -> dict[str, np.ndarray]:
    images = np.random.default_rng(0).uniform(-1, 1, (batch, SIDE, SIDE, 3)).astype(np.float32)
    return {"image": images, "label": (np.arange(batch) % CLASSES).astype(np.int32)}


def _ours(kind: str, changes: dict[str, Any], values: dict[str, Any], batch: int) -> Side:
    """Steps of the recipe, which keep their state between calls."""
    first, step = started(read(_net(kind, values)), changes, weight_decay=0.0, batch_size=batch)
    state = [first]
    rows = jax.tree.map(jnp.asarray, _drawn(batch))
    inputs = Inputs(rows | {"index": jnp.arange(batch), "weight": jnp.ones(batch)}, jr.key(1))

    def call() -> jax.Array:
        state[0], metrics = step(inputs, state[0])
        return metrics["loss"]

    return Side(call)


def _torch_eager(kind: str, values: dict[str, Any], batch: int) -> Side:
    """PyTorch's steps."""
    import torch

    model = _net(kind, values).train()
    adam = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    rows = {name: torch.from_numpy(array) for name, array in _drawn(batch).items()}
    images, labels = rows["image"].permute(0, 3, 1, 2).contiguous(), rows["label"].long()
    # The recipe's average of the weights.
    averaged = [weight.detach().clone() for weight in model.parameters()]

    def call() -> float:
        loss = torch.nn.functional.cross_entropy(model(images).logits, labels)
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()
        with torch.no_grad():
            for own, weight in zip(averaged, model.parameters()):
                own.lerp_(weight, 1e-3)
        return loss.item()

    return Side(call, lambda value: None)
