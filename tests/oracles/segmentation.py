"""The U-Net with batch norm in PyTorch: a batch in training, an image after it, and the loss."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from eqxgen.configs import SegmentationConfig
from eqxgen.models import SegmentationUNet
from tests.oracles import Cases

CLASSES = 3
CONFIG = SegmentationConfig(width=4, multipliers=(1, 2, 3))


def model() -> Any:
    """Our net with drawn weights, of images with 2 channels."""
    rng = np.random.default_rng(0)
    arrays, rest = eqx.partition(SegmentationUNet(2, CLASSES, CONFIG, key=jr.key(0)), eqx.is_inexact_array)
    draw = lambda x: jnp.asarray(0.3 * rng.standard_normal(x.shape) + (x.ndim == 1), jnp.float32)
    return eqx.combine(jax.tree.map(draw, arrays), rest)


def inputs() -> tuple[np.ndarray, np.ndarray]:
    """A batch of images and labels."""
    rng = np.random.default_rng(1)
    return rng.uniform(-1, 1, (3, 12, 20, 2)).astype(np.float32), rng.integers(0, CLASSES, (3, 12, 20))


def cases() -> Cases:
    import torch

    from tests.oracles._segmentation_torch import loss_of, with_weights

    net, (images, labels) = with_weights(model()), inputs()
    batch = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    logits = net.train()(batch)
    loss = loss_of(logits, torch.from_numpy(labels), 1.0, 0.5)
    (gradient,) = torch.autograd.grad(loss, net.ups[0].weight)
    with torch.no_grad():
        after = net.eval()(batch[:1])
    numpy = lambda x: x.detach().numpy()
    return {
        "U-Net": {
            "logits": numpy(logits).transpose(0, 2, 3, 1),
            "loss": numpy(loss),
            "gradient": numpy(gradient).transpose(2, 3, 0, 1),
            "after": numpy(after).transpose(0, 2, 3, 1),
        }
    }
