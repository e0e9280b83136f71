"""Draw samples from any run.

  python -m train.sample --run runs/maskgit-mnist --label 7 --n 64 --steps 8 --guidance 2.0 --out sevens.png
  python -m train.sample --run runs/vqgan-mnist --out pairs.png          # originals above their reconstructions
  python -m train.sample --run runs/maskgit-mnist --n 50000 --out samples.npz       # images and labels, for metrics
  python -m train.sample --run runs/maskgit-mnist --per-class 10 --labels 3 7 --out digits/      # a PNG of each
  python -m train.sample --run runs/diffusion-digits --sampler rk45 --steps 2 --guidance-rule apg --guidance 2
  python -m train.sample --run runs/diffusion-digits --inpaint 3.png --mask lower.png --label 3   # white is painted
  python -m train.sample --run runs/diffusion-digits --edit 3.png --strength 0.6 --label 8 --out eights.png
  python -m train.sample --run runs/diffusion-digits --upscale small.png --label 3 --out large.png
  python -m train.sample --run runs/diffusion-digits --invert 3.png --steps 30 --out inverted.npz
  python -m train.sample --run runs/diffusion-digits --interpolate 3.png 8.png --n 9 --out between.png
  python -m train.sample --run runs/diffusion-digits --likelihood --n 100
  python -m train.sample --run runs/gpt-nano-cpu --prompt "QUEEN" --chars 1000
  python -m train.sample --run runs/gpt-nano-cpu --prompt "QUEEN" --stop "KING" --n 8 --out scenes.jsonl

Options that are not given are those of the run's config. The same seed draws the same samples. `--run RUN --help` lists
the options of that run's recipe.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from .engine.command import run
from .engine.recipes import asked_of_run
from .tasks.sampling import Sample


def main(argv: Sequence[str]) -> int:
    recipe, record, asked = asked_of_run("sample", __doc__ or "", argv, Sample, lambda recipe: recipe.sample)
    asked.check_out()
    folder = Path(asked.run)
    return recipe.draw(recipe.open(folder, record, folder / "config.json"), asked)


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))
