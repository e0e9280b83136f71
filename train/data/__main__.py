"""Check data, and prepare them once to be read fast in every run.

  python -m train.data check ./flowers                                  # pictures, .npz, texts, ids, prepared sets
  python -m train.data check ids.bin --vocab 50257 --context 1024       # ids of a tokenizer of your own
  python -m train.data prepare ./flowers ./flowers64 --image-size 64    # images, decoded and resized
  python -m train.data prepare mnist ./mnist                            # any set that --data.name takes
  python -m train.data prepare ./books ./books-ids --tokenizer chars    # the ids of a text, or of a folder of texts
  python -m train.data prepare mnist ./mnist-ids --tokenizer runs/vqgan-mnist            # tokens, for train.maskgit
  python -m train.data prepare ./flowers64 ./latents --tokenizer ./sd-vae --mirror       # latents, for train.diffusion

Recipes take the folder that `prepare` writes as --data.name. The same command continues where it was interrupted.
"""

import dataclasses
import os
import sys
from pathlib import Path

from .._errors import UsageError, UserError, printable, require
from .._files import read_json
from ..config.data import DataConfig
from ..config.flags import parse
from ..config.options import option
from ..config.usage import PREFIX, document
from ..engine.command import run


@dataclasses.dataclass(frozen=True)
class Prepare:
    """Write a set of images, their latents or tokens, or the ids of a text, as arrays with their SHA-256."""

    source: str = option(positional=True)
    """A known set of images or a path, as --data.name; with a --tokenizer of texts a text file or a folder of them."""
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
    """Of a text: bytes, chars, bpe-4096 (a vocabulary of 4,096 learned from the text), or a tokenizer's path. Of
    images: a finished run or a published folder; a codebook gives tokens, a KL autoencoder latents."""
    mirror: bool = False
    """Latents or tokens of the mirror images too, which --data.augment.flip of a recipe then chooses at random."""
    scale: float | None = None
    """One factor for all channels of latents, such as 0.18215; by default their measured mean and deviation."""
    batch_size: int = 64
    """Images that are encoded at a time, over all devices."""
    mesh: str = ""
    """Mesh of the devices that encode, such as fsdp=8. By default every device has a copy of the encoder."""
    held_out: float = 0.1
    """Share of a text, at its end, held out from training."""
    keep_newlines: bool = False
    """Leave line ends of a text as they are, as --data.keep-newlines."""
    skip_broken: bool = False
    """Leave out files that cannot be read, as --data.skip-broken."""

    def __post_init__(self):
        require(self.shard_mib >= 1, f"--shard-mib must be at least 1: got {self.shard_mib}")
        require(0 < self.held_out < 1, f"--held-out must be between 0 and 1: got {self.held_out}")
        require(self.batch_size >= 1, f"--batch-size must be at least 1: got {self.batch_size}")
        require(
            self.scale is None or 0 < self.scale < float("inf"),
            f"--scale must be above 0 and finite: got {self.scale}",
        )

    def __call__(self) -> int:
        from .preparation import prepare_images, prepare_text

        encodes = self.tokenizer is not None and encodes_images(self.tokenizer)
        self._check(encodes=encodes)
        if encodes:
            index = self._encoded()
        elif self.tokenizer:
            source, keep, skip = Path(self.source).expanduser(), self.keep_newlines, self.skip_broken
            index = prepare_text(source, self.out, self.tokenizer, self.held_out, keep_newlines=keep, skip_broken=skip)
        else:
            index = prepare_images(self._images(), self.out, self.shard_mib * 2**20)
        print(f"done: {index}")
        return 0

    def _check(self, *, encodes: bool) -> None:
        """Raises `UsageError` where a flag goes with another kind of source."""
        if self.tokenizer and not encodes and self.image_size is not None:
            raise UsageError("--image-size is for images and --tokenizer for texts: got both")
        texts = {"--held-out": self.held_out != 0.1, "--keep-newlines": self.keep_newlines}
        if (encodes or not self.tokenizer) and (given := [flag for flag, there in texts.items() if there]):
            raise UsageError(f"{given[0]} goes with a --tokenizer of texts: got {self.tokenizer or 'none'}")
        flags = {"--mirror": self.mirror, "--scale": self.scale is not None, "--mesh": bool(self.mesh)}
        if not encodes and (given := [flag for flag, there in flags.items() if there]):
            raise UsageError(f"{given[0]} goes with a --tokenizer of images: got {self.tokenizer or 'none'}")

    def _encoded(self) -> Path:
        from ..parallel import make_mesh
        from ..parallel.processes import surrounded
        from ..tasks.encoded.encoding import prepare_encoded

        if surrounded():
            raise UserError("--tokenizer: images are encoded by one process and its devices: got several processes")
        return prepare_encoded(
            self._images(),
            self.out,
            str(self.tokenizer),
            make_mesh(self.mesh),
            mirror=self.mirror,
            scale=self.scale,
            batch=self.batch_size,
            shard_bytes=self.shard_mib * 2**20,
        )

    def _images(self) -> DataConfig:
        """The source as a config. A bare name is a known set, or else a path that exists."""
        given = {"root": self.root, "image_size": self.image_size, "threads": self.threads}
        here = self.source not in DataConfig.KNOWN and Path(self.source).exists()
        try:
            return DataConfig(
                os.path.join(".", self.source) if here else self.source, skip_broken=self.skip_broken, **given
            )
        except ValueError as error:
            raise UsageError(str(error).replace("data.name", "SOURCE").replace("data.", "--")) from None


def encodes_images(tokenizer: str) -> bool:
    """True for the folder or the file of a model of images, by the names that it has in config.json or its ending.

    Raises:
        UsageError: it is written as a path, and nothing is there.
    """
    path = Path(tokenizer).expanduser()
    if os.sep in tokenizer and not path.exists():
        raise UsageError(f"--tokenizer {printable(tokenizer)}: no such file or folder: correct the path")
    if not path.is_dir():
        return path.is_file() and path.suffix in (".safetensors", ".msgpack", ".ckpt")
    record = read_json(path / "config.json") if (path / "config.json").is_file() else {}
    kinds = ("AutoencoderKL", "VQModel", "maskgit_vqgan")
    return "recipe" in record or record.get("_class_name", record.get("model_type")) in kinds


@dataclasses.dataclass(frozen=True)
class Check:
    """Read all of a source of any kind, and say what it is: pictures, an .npz, texts, ids, or a prepared set, each of
    whose files is compared with its SHA-256.
    """

    path: str = option(positional=True)
    """A folder or a file, or the name of a known set of images."""
    vocab: int = 2**16
    """Upper bound of the ids in a file of ids, exclusive."""
    context: int = 1
    """Tokens of a window; a file of ids must have at least one more."""

    def __post_init__(self):
        require(1 <= self.vocab <= 2**32, f"--vocab must be between 1 and 2**32: got {self.vocab}")
        require(self.context >= 1, f"--context must be at least 1: got {self.context}")

    def __call__(self) -> int:
        from .inspection import check

        print(check(self.path, self.vocab, self.context))
        return 0


COMMANDS = {"prepare": Prepare, "check": Check}


def main(argv: list[str]) -> int:
    prog = f"{PREFIX}data"
    name = argv[0] if argv else "nothing"
    if name in ("--help", "-h", "--help-all"):
        text = document(__doc__ or "")
        print(f"usage: {prog} {{{','.join(COMMANDS)}}} ...\n\n{text}\n\nFlags of each: {prog} COMMAND --help")
        return 0
    if name not in COMMANDS:
        raise UsageError(f"{prog} must be followed by {' or '.join(COMMANDS)}: got {printable(name)}")
    command = COMMANDS[name]
    return parse(command, f"data {name}", command.__doc__ or "", argv[1:])()


if __name__ == "__main__":
    run(lambda: main(sys.argv[1:]))
