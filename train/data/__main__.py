"""Prepare data once, to read them fast in every run.

  python -m train.data prepare ./flowers ./flowers64 --image-size 64    # images, decoded and resized
  python -m train.data prepare mnist ./mnist                            # any set that --data.name takes
  python -m train.data prepare ./books ./books-ids --tokenizer chars    # the ids of a text, or of a folder of texts
  python -m train.data check ./flowers64                                # every file against its SHA-256
  python -m train.data check ids.bin --vocab 50257 --context 1024       # ids of a tokenizer of your own, without a header

Recipes take the folder that `prepare` writes as --data.name. The same command continues where it was interrupted.
"""

import dataclasses
import sys
from pathlib import Path

from .._errors import UsageError, printable, require
from ..config.data import DataConfig
from ..config.flags import parse
from ..config.options import option
from ..engine.command import run


@dataclasses.dataclass(frozen=True)
class Prepare:
    """Write a set of images, or the ids of a text, as arrays with their SHA-256."""

    source: str = option(positional=True)
    """Data as --data.name names it; with --tokenizer a text file or a folder of text files."""
    out: Path = option(positional=True)
    """Folder to write."""
    root: str | None = None
    """Folder of the known sets, as --data.root."""
    image_size: int | None = None
    """Side of the square images, as --data.image-size."""
    threads: int = 8
    """Decoding threads."""
    shard_mib: int = 256
    """Largest size of a file of images, in MiB."""
    tokenizer: str | None = None
    """Tokens of a text: bytes, chars, bpe-4096 (a vocabulary of 4,096 learned from the text), or a tokenizer's path."""
    held_out: float = 0.1
    """Share of a text, at its end, held out from training."""

    def __post_init__(self):
        require(self.shard_mib >= 1, f"--shard-mib must be at least 1: got {self.shard_mib}")
        require(0 < self.held_out < 1, f"--held-out must be between 0 and 1: got {self.held_out}")
        require(
            self.tokenizer is None or self.image_size is None,
            "--image-size is for images and --tokenizer for texts: got both",
        )

    def __call__(self) -> int:
        from .files.prepare import prepare_images, prepare_text

        if self.tokenizer:
            index = prepare_text(Path(self.source).expanduser(), self.out, self.tokenizer, self.held_out)
        else:
            config = DataConfig(self.source, root=self.root, image_size=self.image_size, threads=self.threads)
            index = prepare_images(config, self.out, self.shard_mib * 2**20)
        print(f"done: {index}")
        return 0


@dataclasses.dataclass(frozen=True)
class Check:
    """Compare every file of a prepared set with its SHA-256, or check the ids of a file of tokens."""

    path: Path = option(positional=True)
    """Prepared folder, or file of ids."""
    vocab: int = 2**16
    """Upper bound of the ids in a file of ids, exclusive."""
    context: int = 1
    """Tokens of a window; a file of ids must have at least one more."""

    def __post_init__(self):
        require(1 <= self.vocab <= 2**32, f"--vocab must be between 1 and 2**32: got {self.vocab}")
        require(self.context >= 1, f"--context must be at least 1: got {self.context}")

    def __call__(self) -> int:
        from .files.prepared import check_prepared
        from .text.tokens import Tokens

        if self.path.is_dir():
            print(f"{self.path}: {check_prepared(self.path):,} bytes as they were written")
        else:
            print(
                f"{self.path}: {Tokens(self.path, vocab=self.vocab, context=self.context).tokens:,} ids below "
                f"{self.vocab:,}"
            )
        return 0


COMMANDS = {"prepare": Prepare, "check": Check}


def main(argv: list[str]) -> int:
    prog = "python -m train.data"
    name = argv[0] if argv else "nothing"
    if name in ("--help", "-h", "--help-all"):
        print(f"usage: {prog} {{{','.join(COMMANDS)}}} ...\n\n{__doc__}\nFlags of each: {prog} COMMAND --help")
        return 0
    if name not in COMMANDS:
        raise UsageError(f"{prog} must be followed by {' or '.join(COMMANDS)}: got {printable(name)}")
    command = COMMANDS[name]
    return parse(command, f"{prog} {name}", command.__doc__ or "", argv[1:])()


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))
