"""A run of `train.segment` beside the same U-Net in PyTorch, from the same weights, on the same crops:
`EQXGEN_DATA=DATA python -m bench.models.segmentation_curves --run runs/segment-isbi`, where PyTorch is installed.

PyTorch makes every step of the run: AdamW with decay of kernels, warm-up and cosine, clipped gradients, averaged
weights and statistics. Writes bench/results/cpu/segmentation_curves.json with the losses of the first 20 steps of both,
those of every logged step, and the scores of the held-out images, predicted by the same tiles.
"""

import argparse
import dataclasses
import json
import pathlib
import time
from typing import Any

import jax
import jax.random as jr
import numpy as np
import torch

from eqxgen.metrics import Confusion
from tests.oracles._segmentation_torch import UNet, loss_of, with_weights
from train import segment
from train.data import Order
from train.data.pairs.pairs import Pairs
from train.data.pairs.sources import load_pairs
from train.engine.recipes import recipe_of
from train.engine.step import Inputs, Setup, make_step, sharded_state
from train.optim import schedule
from train.parallel import make_mesh
from train.tasks.segment.recipe import crops

FIRST = 20
RESULT = pathlib.Path(__file__).parents[1] / "results" / "cpu" / "segmentation_curves.json"


def theirs(net: UNet, pairs: Pairs, config: segment.Config) -> tuple[list[float], UNet]:
    """Losses of PyTorch's training, and its averaged net."""
    kernels = [p for p in net.parameters() if p.ndim >= 2]
    others = [p for p in net.parameters() if p.ndim < 2]
    groups = [{"params": kernels, "weight_decay": config.optim.weight_decay}, {"params": others, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, betas=(config.optim.beta1, config.optim.beta2), eps=config.optim.epsilon)
    rate, losses = schedule(config.optim, config.steps), []
    averaged = {name: value.clone() for name, value in net.state_dict().items()}
    order = Order(config.seed, config.batch_size, len(pairs.train))
    net.train()
    for step in range(config.steps):
        batch = crops(pairs, config, order.part(step))
        for group in adam.param_groups:
            group["lr"] = float(rate(step))
        logits = net(torch.from_numpy(batch["image"].transpose(0, 3, 1, 2).copy()))
        labels = torch.from_numpy(batch["label"].astype(np.int64))
        loss = loss_of(logits, labels, config.cross_entropy, config.dice)
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), config.optim.clip)
        adam.step()
        losses.append(loss.item())
        gain = max(1 - config.ema.decay, 9 / (10 + step))
        for name, value in net.state_dict().items():
            averaged[name] = torch.lerp(averaged[name], value, gain) if value.is_floating_point() else value
        if (step + 1) % 50 == 0:
            print(f"PyTorch: step {step + 1}/{config.steps}, loss {losses[-1]:.4f}", flush=True)
    net.load_state_dict(averaged)
    return losses, net


def scores(net: UNet, pairs: Pairs, config: segment.Config) -> dict[str, float]:
    """Dice and IoU of the held-out images, by the same tiles."""
    net.eval()
    counts, tiling = Confusion.of(len(pairs.classes)), config.tiling()
    for image, mask in zip(pairs.test.images, pairs.test.masks):
        tiles, places = tiling.cut(pairs.normalise(image))
        with torch.no_grad():
            logits = [net(torch.from_numpy(tile.transpose(2, 0, 1).copy())[None])[0] for tile in tiles]
        shares = np.stack([torch.softmax(found, 0).numpy().transpose(1, 2, 0) for found in logits])
        guesses = np.argmax(tiling.blend(shares, places, mask.shape), axis=-1)
        counts = counts.update(guesses.ravel(), mask.ravel().astype(np.int64))
    both = counts.f1(), counts.iou()
    found = {"eval_accuracy": counts.accuracy()}
    for word, row in zip(("dice", "iou"), both):
        found |= {f"eval_{word}_{kind.name}": float(score) for kind, score in zip(pairs.classes, row)}
    return found


def ours(config: segment.Config, facts: Any, pairs: Pairs) -> tuple[Any, list[float]]:
    """The run's weights before the first step, and the losses of its first steps."""
    setup = Setup.of(config, segment.program(config, facts), make_mesh("", jax.devices()[:1]), on_cpu=True)
    key = jr.key(config.seed)
    state, step = sharded_state(setup, jr.fold_in(key, 0), None), make_step(setup)
    start = jax.device_get(state.model)
    order, losses = Order(config.seed, config.batch_size, len(pairs.train)), []
    for number in range(FIRST):
        part = order.part(number)
        batch = crops(pairs, config, part) | {"index": part.index, "weight": np.ones(config.batch_size, np.float32)}
        state, found = step(Inputs(batch, jr.fold_in(key, 1)), state)
        losses.append(float(found["loss"]))
    return start, losses


def main() -> None:
    """The race; prints and keeps the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, help="folder of a finished run of train.segment")
    folder = pathlib.Path(parser.parse_args().run)
    record = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    run = recipe_of(record, folder).open(folder, record, folder)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    logged = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    config = dataclasses.replace(run.config, run_dir=None)
    pairs = load_pairs(config.data)
    start, losses = ours(config, run.facts, pairs)
    began = time.process_time()
    curve, net = theirs(with_weights(start), pairs, config)
    seconds = time.process_time() - began
    found = scores(net, pairs, config)
    difference = max(abs(a - b) / b for a, b in zip(losses, curve))
    about = {"steps": config.steps, "batch": config.batch_size, "jax": jax.__version__, "torch": torch.__version__}
    result = {
        "about": about | {"processor seconds of PyTorch": round(seconds)},
        "first steps": {"largest relative difference": difference, "ours": losses, "torch": curve[:FIRST]},
        "logged": [{"step": x["step"], "ours": x["loss"], "torch": curve[x["step"] - 1]} for x in logged],
        "held out": {name: {"ours": summary[name], "torch": value} for name, value in found.items()},
    }
    print(f"first {FIRST} steps apart by {difference:.1e}", json.dumps(result["held out"]))
    RESULT.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
