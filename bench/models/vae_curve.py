"""Negative ELBO of held-out MNIST after each of 10 epochs of `python -m train.vae --preset mnist`, mean of three seeds,
beside PyTorch's: `python -m bench.models.vae_curve`, where EQXGEN_DATA names a folder that has mnist/.

PyTorch's numbers are of the same net (784-400-20, grey cross-entropy, Adam 1e-3, batches of 128) on the same images.
Writes bench/results/cpu/vae_curve.json; ends with an error where an epoch is more than half a nat off.
"""

import dataclasses
import json
import pathlib
import tempfile

import jax

from train import vae

PYTORCH = (127.4, 115.6, 112.0, 109.8, 108.3, 107.8, 106.7, 106.6, 105.9, 105.8)
SEEDS, NEAR = (0, 1, 2), 0.5
RESULT = pathlib.Path(__file__).parents[1] / "results" / "cpu" / "vae_curve.json"


def curve(seed: int, folder: pathlib.Path) -> list[float]:
    """The held-out negative ELBO in nats after each epoch."""
    preset = vae.PRESETS["mnist"]
    epoch = preset.steps // len(PYTORCH)
    config = dataclasses.replace(
        preset,
        seed=seed,
        run_dir=str(folder),
        evals=(f"elbo:{epoch}",),
        log_every=epoch,
        sample_every=0,
        checkpoint_every=preset.steps,
    )
    assert vae.main(config) == 0
    lines = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    found = {line["step"]: line["eval_loss"] for line in lines if "eval_loss" in line}
    found[preset.steps] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))["eval_loss"]
    return [found[epoch * (number + 1)] for number in range(len(PYTORCH))]


def main() -> None:
    """All seeds; prints and keeps the result."""
    curves = []
    for seed in SEEDS:
        with tempfile.TemporaryDirectory() as folder:
            curves.append(curve(seed, pathlib.Path(folder) / "run"))
    means = [sum(epoch) / len(epoch) for epoch in zip(*curves)]
    largest = max(abs(ours - theirs) for ours, theirs in zip(means, PYTORCH))
    print("ours   ", *(f"{value:.1f}" for value in means))
    print("PyTorch", *PYTORCH, f"largest difference {largest:.2f}")
    about = {"seeds": SEEDS, "jax": jax.__version__, "device": jax.devices()[0].device_kind}
    found = {"about": about, "largest difference": largest, "ours": means, "PyTorch": PYTORCH, "each seed": curves}
    RESULT.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if largest > NEAR:
        raise SystemExit(f"an epoch is {largest:.2f} nats off PyTorch's, more than {NEAR}")


if __name__ == "__main__":
    main()
