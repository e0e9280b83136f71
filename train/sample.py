"""Draw samples from any run.

  python -m train.sample --run runs/maskgit-mnist --label 7 --n 64 --steps 8 --guidance 2.0 --out sevens.png
  python -m train.sample --run runs/vqgan-mnist --out pairs.png          originals above their reconstructions
  python -m train.sample --run runs/gpt-nano-cpu --prompt "QUEEN" --chars 1000

What is not given is as the run's config says. The same seed draws the same samples. `--run RUN --help` lists what such
a run takes.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from ._errors import UsageError
from .config import flags
from .config.base import run
from .engine.recipes import recipe_of
from .run.folder import read_json
from .tasks.sampling import Sample

PROG = "python -m train.sample"


def main(argv: Sequence[str]) -> int:
    folder = flags.value_of("--run", argv)
    if folder is None:
        flags.parse(Sample, PROG, __doc__ or "", argv)  # --help, or the error that --run is missing
        raise UsageError("--run must be the folder of a run: got none")
    path = Path(folder) / "config.json"
    record = read_json(path)
    recipe = recipe_of(record, path)
    try:
        flags.check(argv, list(flags.names_of(recipe.sample)))
    except UsageError as error:
        raise UsageError(f"{error}; {folder} is a run of train.{recipe.name}") from None
    asked = flags.parse(recipe.sample, PROG, __doc__ or "", argv)
    return recipe.draw(recipe.open(Path(folder), record, path), asked)


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))
