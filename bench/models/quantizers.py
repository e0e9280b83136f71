"""Every quantiser on the same net, data and steps: `python -m bench.models.quantizers --steps 100`.

The digits preset of `train.vqgan` with 64 codes. Prints a table and writes bench/results/cpu/quantizers.json: PSNR in
dB and the Fréchet distances of held-out reconstructions on both judges' features (rFD), share of the codes in use and
their perplexity over the held-out images, tokens of an image, seconds of the run without its evaluation.
"""

import argparse
import dataclasses
import json
import math
import pathlib
import tempfile
import time

from eqxgen.configs import QUANTIZERS
from train import vqgan
from train._files import read_json

OWN = {"gumbel": {"quantisation": 5e-4}, "multiscale": {"scales": (1, 2, 3, 4)}}
"""Options of a quantiser: gumbel's divergence weighs as much in taming transformers' code, at 1 it drowns the image;
scales end at the grid of 4 x 4.
"""
RESULT = pathlib.Path(__file__).parents[1] / "results" / "cpu" / "quantizers.json"
SCORES = ("psnr", "fd_judge", "fd_judge_vit", "codebook_usage", "codebook_perplexity")
COLUMNS = (*SCORES, "tokens", "seconds")


def measured(quantizer: str, steps: int, folder: pathlib.Path) -> dict[str, float]:
    """Numbers of one run."""
    changes = {"quantizer": quantizer, "steps": steps, "stages": 2, "sample_every": 0, "checkpoint_every": steps}
    evals = {"evals": ("reconstruction", "fidelity"), "run_dir": str(folder), "log_every": steps}
    config = dataclasses.replace(vqgan.PRESETS["digits"], **changes, **evals, **OWN.get(quantizer, {}))
    began = time.perf_counter()
    if status := vqgan.main(config):
        raise SystemExit(status)
    seconds = time.perf_counter() - began
    summary = read_json(folder / "summary.json")
    found = {name: round(summary[name], 4) for name in SCORES}
    return {
        **found,
        "tokens": math.prod(config.places(8, 8)),
        "seconds": round(seconds - summary["evaluation_seconds"], 1),
    }


def main() -> None:
    """All runs; prints and keeps the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=100)
    steps, rows = parser.parse_args().steps, {}
    with tempfile.TemporaryDirectory() as folder:
        for quantizer in QUANTIZERS:
            rows[quantizer] = measured(quantizer, steps, pathlib.Path(folder) / quantizer)
            RESULT.write_text(json.dumps({"preset": "digits", "steps": steps, "rows": rows}, indent=1) + "\n")
    print(f"{'quantizer':10} " + " ".join(f"{name:>19}" for name in COLUMNS))
    for quantizer, row in rows.items():
        print(f"{quantizer:10} " + " ".join(f"{row[name]:19.4g}" for name in COLUMNS))


if __name__ == "__main__":
    main()
