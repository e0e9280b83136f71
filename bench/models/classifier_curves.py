"""Losses of 100 training steps of `train.classify` beside transformers' ViTForImageClassification and
ResNetForImageClassification in PyTorch, from the same weights, on the same images of CIFAR-10:
`EQXGEN_DATA=DATA python -m bench.models.classifier_curves`, where transformers and PyTorch are installed.

Small nets, label smoothing 0.1, AdamW with decay of matrices, batch norm in training mode: the step is that of the
recipe. Both in float64: in float32 the ResNets are the same to 1e-6 for 12 steps and 1e-2 apart after 100, as rounding
grows through batch norm and Adam. Writes bench/results/cpu/classifier_curves.json with both curves, their largest
relative difference, and that of the running statistics after the last step.
"""

import dataclasses
import json
import math
import pathlib
import tempfile
from typing import Any

import jax
import jax.random as jr
import numpy as np

from eqxgen.configs import ResNetConfig, ViTConfig
from eqxgen.pretrained import from_pretrained
from train import classify
from train.config.data import DataConfig
from train.config.optim import OptimConfig
from train.data import Order, load
from train.engine.step import Inputs, Setup, make_step, sharded_state
from train.parallel import make_mesh
from train.params.paths import named_arrays
from train.tasks.facts import ClassifierFacts

STEPS, BATCH, RATE, DECAY, SMOOTHING = 100, 32, 1e-3, 0.05, 0.1
RESULT = pathlib.Path(__file__).parents[1] / "results" / "cpu" / "classifier_curves.json"
FACTS = ClassifierFacts((32, 32, 3), 10)
VIT = {
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "image_size": 32,
    "patch_size": 4,
    "num_labels": 10,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
RESNET = {
    "embedding_size": 16,
    "hidden_sizes": [16, 32],
    "depths": [1, 2],
    "layer_type": "basic",
    "num_labels": 10,
}
OURS: dict[str, dict[str, Any]] = {
    "ViT": {"backbone": "vit", "vit": ViTConfig(4, 64, 3, 4, hidden_dim=128, epsilon=1e-12)},
    "ResNet": {"backbone": "resnet", "model": ResNetConfig(16, (1, 2), depths=(1, 2), stem=16)},
}


def batches() -> list[tuple[np.ndarray, np.ndarray]]:
    """Images in [-1, 1] and labels of every step, in the order of a run."""
    dataset = load(DataConfig("cifar10"))
    order = Order(0, BATCH, len(dataset.train_images))
    parts = [order.part(step).example for step in range(STEPS)]
    images = lambda part: dataset.normalise(dataset.train_images[part]).astype(np.float64)
    return [(images(part), dataset.train_labels[part]) for part in parts]


def theirs(model: Any, data: list) -> list[float]:
    """Losses of PyTorch's training."""
    import torch

    groups: tuple[list, list] = ([], [])
    for parameter in model.parameters():
        groups[parameter.ndim >= 2].append(parameter)
    options = [{"params": groups[1], "weight_decay": DECAY}, {"params": groups[0], "weight_decay": 0.0}]
    adam, losses = torch.optim.AdamW(options, lr=RATE, betas=(0.9, 0.999), eps=1e-8), []
    judge = torch.nn.CrossEntropyLoss(label_smoothing=SMOOTHING)
    model.train()
    for images, labels in data:
        logits = model(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).logits
        loss = judge(logits, torch.from_numpy(labels.astype(np.int64)))
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    return losses


def read(model: Any) -> Any:
    """A model of PyTorch as ours."""
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return from_pretrained(folder)


def means(state: Any) -> list[np.ndarray]:
    """Running means of every batch norm."""
    return [np.asarray(norm.mean) for norm in state or ()]


def started(model: Any, changes: dict[str, Any], *, weight_decay: float, **values: Any) -> tuple[Any, Any]:
    """The state of the recipe's training from a model, and its step, with AdamW at a constant rate.

    Args:
        changes, values: of the config: the net of the model, and the rest.
    """
    optim = OptimConfig(
        learning_rate=RATE, warmup=0, decay="constant", beta2=0.999, weight_decay=weight_decay, clip=math.inf
    )
    config = dataclasses.replace(classify.Config(optim=optim, steps=STEPS), **changes, **values)
    setup = Setup.of(config, classify.program(config, FACTS), make_mesh("", jax.devices()[:1]), on_cpu=True)
    prefix = "" if config.backbone == "resnet" else "model."
    start = {f"{prefix}{path}": array for path, array in named_arrays(model).items()}
    return sharded_state(setup, jr.key(0), start), make_step(setup)


def ours(model: Any, changes: dict[str, Any], data: list) -> tuple[list[float], Any]:
    """Losses of the recipe's steps, and the model state after them."""
    state, step = started(
        model, changes, weight_decay=DECAY, batch_size=BATCH, label_smoothing=SMOOTHING, precision="float64"
    )
    losses, more = [], {"index": np.arange(BATCH, dtype=np.int32), "weight": np.ones(BATCH, np.float32)}
    for images, labels in data:
        state, found = step(Inputs({"image": images, "label": labels, **more}, jr.key(1)), state)
        losses.append(float(found["loss"]))
    return losses, state.state


def main() -> None:
    """Both races; prints and keeps the result."""
    import torch
    import transformers

    jax.config.update("jax_enable_x64", True)
    data, found = batches(), {}
    for name, kind, values in (("ViT", "ViT", VIT), ("ResNet", "ResNet", RESNET)):
        torch.manual_seed(0)
        config = getattr(transformers, f"{kind}Config")(**values)
        model = getattr(transformers, f"{kind}ForImageClassification")(config).double()
        first, state = ours(read(model), OURS[name], data)
        second, after = theirs(model, data), read(model)
        difference = max(abs(a - b) / b for a, b in zip(first, second))
        apart = max(
            (float(np.abs(a - b).max()) for a, b in zip(means(state), means(getattr(after, "state", None)))),
            default=0.0,
        )
        found[name] = {"largest relative difference": difference, "running means apart": apart}
        found[name] |= {"ours": first, "transformers": second}
        print(name, f"first {first[0]:.5f}, last {first[-1]:.5f}, difference {difference:.1e}, means {apart:.1e}")
    about = {"steps": STEPS, "batch": BATCH, "jax": jax.__version__, "torch": torch.__version__}
    about["transformers"] = transformers.__version__
    RESULT.write_text(json.dumps({"about": about} | found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
