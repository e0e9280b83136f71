"""Prepare data once, to read them fast in every run.

python -m train.data prepare ./flowers ./flowers64 --image-size 64    # images, decoded and resized, for --data.name ./flowers64
python -m train.data prepare mnist ./mnist                            # any set that --data.name takes
python -m train.data prepare ./books ./books-ids --tokenizer chars    # the ids of a text, or of a folder of texts
python -m train.data check ./flowers64                                # every file against its SHA-256
python -m train.data check ids.bin --vocab 50257 --context 1024       # ids of a tokenizer of your own, without a header
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
    """Write a set of images, or the ids of a text, as arrays with their sums. The same command goes on where it was
    interrupted.
    """

    source: str = option(positional=True)
    """What --data.name takes; with --tokenizer a text file or a folder of them."""
    out: Path = option(positional=True)
    """The folder to write."""
    root: str | None = None
    """As --data.root."""
    image_size: int | None = None
    """As --data.image-size."""
    threads: int = 8
    """Threads that decode."""
    shard_mib: int = 256
    """Size of a file of images at most."""
    tokenizer: str | None = None
    """What the ids of a text are: bytes, chars, bpe-4096 (as many byte pairs, learned of the text), or the path of a
    tokenizer's files.
    """
    held_out: float = 0.1
    """The share at the end of a text that is not trained on."""

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
    """Read every file of a prepared set, and compare it with the sum that was written down; or read a file of token
    ids.
    """

    path: Path = option(positional=True)
    """The folder, or the file of ids."""
    vocab: int = 2**16
    """Of a file of ids: they must be below this."""
    context: int = 1
    """Of a file of ids: it must have at least one more."""

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
