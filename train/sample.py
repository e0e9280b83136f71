"""Draw samples from any run.

  python -m train.sample --run runs/maskgit-mnist --label 7 --n 64 --steps 8 --guidance 2.0 --out sevens.png
  python -m train.sample --run runs/vqgan-mnist --out pairs.png          # originals above their reconstructions
  python -m train.sample --run runs/maskgit-mnist --n 50000 --out samples.npz       # images and labels, for metrics
  python -m train.sample --run runs/maskgit-mnist --per-class 10 --labels 3 7 --out digits/      # a PNG of each
  python -m train.sample --run runs/diffusion-digits --sampler rk45 --steps 2 --guidance-rule apg --guidance 2
  python -m train.sample --run runs/diffusion-digits --inpaint 3.png --mask lower.png --label 3   # white is painted
  python -m train.sample --run runs/diffusion-digits --edit 3.png --strength 0.6 --label 8 --out eights.png
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

from ._errors import UsageError
from ._files import read_json
from .config import flags
from .engine.command import run
from .engine.recipes import recipe_of
from .tasks.sampling import Sample


def main(argv: Sequence[str]) -> int:
    folder = flags.value_of("--run", argv)
    if folder is None:
        flags.parse(Sample, "sample", __doc__ or "", argv)  # --help, or the error
        raise UsageError("--run must be the folder of a run: got no value")
    path = Path(folder) / "config.json"
    record = read_json(path)
    recipe = recipe_of(record, path)
    try:
        asked = flags.parse(recipe.sample, "sample", __doc__ or "", argv)
    except UsageError as error:
        raise UsageError(f"{error}; {folder} is a run of train.{recipe.name}") from None
    asked.check_out()
    return recipe.draw(recipe.open(Path(folder), record, path), asked)


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))
