"""Write a working skeleton with its rows in the tables of tests, docs and benchmarks.

  python -m tests.new layer ChannelScale      # a class of eqxgen.nn
  python -m tests.new model TinyNet           # a class of eqxgen.models and its config
  python -m tests.new recipe tinynet          # train/tinynet.py; its model is the class of that name, or a new one
  python -m tests.new sampler one_pass        # a function of eqxgen.decoding

Prints the files written and changed, and the command that runs their tests. An existing name is never overwritten.
"""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.new.edits import Checkout
from tests.new.layer import layer
from tests.new.model import model
from tests.new.recipe import recipe
from tests.new.sampler import sampler

KINDS: dict[str, Callable[[Checkout, str], str]] = {
    "layer": layer,
    "model": model,
    "recipe": recipe,
    "sampler": sampler,
}


def main(argv: Sequence[str], root: Path) -> int:
    """Writes the skeleton of `KIND NAME` into the checkout `root`; gives the exit status."""
    if len(argv) != 2 or argv[0] not in KINDS:
        print(f"usage: python -m tests.new {'|'.join(KINDS)} NAME: got {' '.join(argv) or 'nothing'}", file=sys.stderr)
        return 2
    checkout = Checkout(root)
    try:
        tests = KINDS[argv[0]](checkout, argv[1])
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    checkout.write()
    print("\n".join(checkout.report()))
    print(f"\nIts tests: python -m pytest -q -n 0 {tests}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path(__file__).parents[2]))
