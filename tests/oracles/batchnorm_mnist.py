"""PyTorch training a small convolutional net with batch norm: 100 steps of plain SGD on the first images of MNIST's
training set.

The batches are images 0 to 31, 32 to 63 and so on, as `(batch, 1, 28, 28)` in [0, 1]. Kept are the first weights, the
loss of each step, and the running statistics after the last.
"""

import gzip
from pathlib import Path

import numpy as np

from tests.oracles import DATA, Cases

STEPS, BATCH, RATE = 100, 32, 0.1


def batches(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Images `(STEPS, BATCH, 28, 28)` in [0, 1] and labels `(STEPS, BATCH)`."""
    count = STEPS * BATCH
    pixels = gzip.decompress((folder / "mnist" / "train-images-idx3-ubyte.gz").read_bytes())[16 : 16 + count * 28 * 28]
    labels = gzip.decompress((folder / "mnist" / "train-labels-idx1-ubyte.gz").read_bytes())[8 : 8 + count]
    images = np.frombuffer(pixels, np.uint8).reshape(STEPS, BATCH, 28, 28).astype(np.float32) / 255
    return images, np.frombuffer(labels, np.uint8).reshape(STEPS, BATCH).astype(np.int32)


def cases() -> Cases:
    import torch

    nn = torch.nn
    torch.manual_seed(0)
    # In float64: rounding grows over the steps, and would be most of what a comparison in float32 shows.
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 7 * 7, 10),
    ).double()
    kept = {name: parameter.detach().numpy().copy() for name, parameter in net.named_parameters()}
    optimiser = torch.optim.SGD(net.parameters(), RATE)
    losses = []
    for images, labels in zip(*batches(DATA)):
        loss = nn.functional.cross_entropy(net(torch.tensor(images).double()[:, None]), torch.tensor(labels).long())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    running = {name: buffer.numpy() for name, buffer in net.named_buffers() if name.endswith(("mean", "var"))}
    return {"training": {**kept, **running, "losses": np.asarray(losses)}}
