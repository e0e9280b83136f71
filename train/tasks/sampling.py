"""Flags of `python -m train.sample` that kinds of runs share. Imports nothing heavy."""

import dataclasses
import os
import typing
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from .._errors import UsageError, UserError, require

Form = TypeVar("Form")
COLUMNS = 8
"""Images in a row of a grid, by default."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sample:
    """Options of every family."""

    run: str
    """Folder of the run."""
    seed: int = 0
    """Seed of every draw."""
    mesh: str = ""
    """Mesh of devices, such as fsdp=8. By default every device has a copy of the model."""

    def __post_init__(self):
        require(0 <= self.seed < 2**32, f"seed must be in [0, 2**32): got {self.seed}")

    def check_out(self) -> None:
        """Raises `UserError` where `--out` is a folder with files, among which samples would be lost."""
        out = getattr(self, "out", None)
        if out is not None and os.path.isdir(out) and os.listdir(out):
            raise UserError(f"--out {out}: must be a new or empty folder: it holds {len(os.listdir(out))} files")


def write_out(out: str | None, whole: str, told: str) -> int:
    """Writes complete texts on the screen, or in the file `out`; gives the exit status.

    Args:
        told: what was written, for the line that names the file.

    Raises:
        UserError: the file cannot be written.
    """
    if out is None:
        print(whole, end="", flush=True)
        return 0
    from .._files import write_atomically

    before = os.path.isfile(out)
    try:
        write_atomically(Path(out), lambda part: part.write_text(whole, encoding="utf-8"))
    except UserError as error:
        raise UserError(f"--out {error}") from None
    print(f"{told} in {out}{', in place of the file before' if before else ''}")
    return 0


def at_most(flag: str, given: int | None, there: int, what: str, *, usual: int | None = None) -> int:
    """The number that a flag gives; without it the usual one, or all where there are fewer or none is usual.

    Raises:
        UsageError: it is above what there is.
    """
    if given is not None and given > there:
        raise UsageError(f"{flag} must be at most the {what}, {there:,}: got {given:,}")
    return min(there, next((count for count in (given, usual) if count is not None), there))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pictures(Sample):
    """Images in one grid, or each by itself."""

    out: str = "samples.png"
    """A grid, as .png, .jpg or .webp; .npz: arrays `images` (uint8) and `labels`; FOLDER/ with a slash at its end: a
    PNG of each image, and labels.csv.
    """
    columns: int | None = None
    """Images in a row of the grid; 8 by default."""

    def __post_init__(self):
        from ..data.images.grid import FORMATS

        super().__post_init__()
        require(self.columns is None or self.columns >= 1, f"columns must be at least 1: got {self.columns}")
        known = (*FORMATS, ".npz", "/")
        require(
            self.out.lower().endswith(known) and os.path.basename(self.out).lower() not in known,
            f"out must be a file of {', '.join(known[:-1])}, or FOLDER/ for single files: got {self.out!r}",
        )

    @property
    def as_grid(self) -> bool:
        """One picture of all images is asked for."""
        return not self.out.lower().endswith((".npz", "/"))

    def save(self, batches: Iterable[Any], labels: Any) -> int:
        """Writes images; gives the exit status.

        Args:
            batches: images `(n, height, width, channels)` in [-1, 1]; without a grid, two are held at a time.
            labels: of all of them together.

        Raises:
            UserError: the images are NaN, or the file cannot be written.
        """
        from .writers import write_images

        before = os.path.isfile(self.out)
        try:
            count = write_images(self.out, batches, labels, columns=self.columns or COLUMNS, seed=self.seed)
        except FloatingPointError as error:
            raise UserError(f"--run {self.run}: {error}") from None
        print(f"{count:,} images in {self.out}{', in place of the file before' if before else ''}")
        return 0

    def save_arrays(self, images: Any, labels: Any, **others: Any) -> int:
        """Writes an .npz of images in [-1, 1] as uint8, labels and other arrays; gives the exit status.

        Raises:
            UserError: the images are NaN, or the file cannot be written.
        """
        import numpy as np

        from .._files import write_atomically
        from .writers import pixels

        try:
            arrays = {"images": pixels(images), "labels": labels, **others}
        except FloatingPointError as error:
            raise UserError(f"--run {self.run}: {error}") from None

        def write(part: Path) -> None:
            with part.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)

        write_atomically(Path(self.out), write)
        print(f"{', '.join(arrays)} in {self.out}")
        return 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageSample(Pictures):
    """Images of classes."""

    n: int | None = None
    """Number of images; 64 by default."""
    per_class: int | None = None
    """Number of images of each class, in place of --n."""
    label: int | None = None
    """Class of all images; by default the classes in turn."""
    labels: tuple[int, ...] = ()
    """Classes of the images, in turn."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("n", "per_class"):
            value = getattr(self, name)
            require(value is None or value >= 1, f"{name} must be at least 1: got {value}")
        for name, values in (("label", (self.label or 0,)), ("labels", self.labels)):
            require(min(values, default=0) >= 0, f"{name} must be at least 0: got {min(values, default=0)}")
        require(len(set(self.labels)) == len(self.labels), f"labels must be each given once: got {self.labels}")
        require(self.n is None or self.per_class is None, "n goes without per_class: give one of them")
        require(self.label is None or not self.labels, "label goes without labels: give one of them")

    def count(self, classes: int) -> int:
        """Number of images of so many classes."""
        return 64 if self.n is None and self.per_class is None else self.n or (self.per_class or 0) * classes


@dataclasses.dataclass(frozen=True, kw_only=True)
class CaptionSample(Pictures):
    """Images of texts; a file's label is the number of its text."""

    text: tuple[str, ...] = ()
    """What the images are of; several, for images of each."""
    n: int | None = None
    """Images of each text; 8 by default."""

    def __post_init__(self):
        super().__post_init__()
        require(self.n is None or self.n >= 1, f"n must be at least 1: got {self.n}")
        require(bool(self.text), 'text must be given, as in --text "three red sevens in a row"')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranked(Sample):
    """Images of which the best is kept."""

    rerank: int | None = None
    """Images drawn for each that is kept: the one that --matcher finds nearest to its text, or to the name of its
    class."""
    matcher: str | None = None
    """With --rerank: folder of a run of train.clip."""

    def __post_init__(self):
        super().__post_init__()
        require(self.rerank is None or self.rerank >= 2, f"rerank must be at least 2: got {self.rerank}")
        require((self.rerank is None) == (self.matcher is None), "rerank goes with matcher, a run of train.clip")
        both = self.rerank is not None and getattr(self, "candidates", None) is not None
        require(not both, "candidates goes without rerank: give one of them")


def ranked(form: type[Form]) -> type[Form]:
    """The flags with those of `Ranked`."""
    names = {"__doc__": form.__doc__, "__module__": __name__}
    return dataclasses.make_dataclass(
        form.__name__, [], bases=(Ranked, form), namespace=names, frozen=True, kw_only=True
    )


def with_options(form: type[Form], options: type, prefix: str) -> type[Form]:
    """The flags with those of a sampler's options, each None by default: as the run's config says.

    Args:
        form: flags of a kind.
        options: a frozen dataclass of `eqxgen.configs.decoding`.
        prefix: of its fields in its own messages, such as "decode.".
    """

    def check(self: Any) -> None:
        form.__post_init__(self)  # pyright: ignore[reportAttributeAccessIssue]
        try:
            options(**given(self, options))
        except ValueError as error:
            raise ValueError(str(error).replace(prefix, "")) from None

    kinds = typing.get_type_hints(options)
    fields = [(field.name, kinds[field.name] | None, None) for field in dataclasses.fields(options)]
    names = {"__doc__": form.__doc__, "__module__": __name__, "__post_init__": check}
    return dataclasses.make_dataclass(
        form.__name__, fields, bases=(options, form), namespace=names, frozen=True, kw_only=True
    )


def given(form: Any, options: type) -> dict[str, Any]:
    """Values of the fields of `options` that the flags set."""
    values = {field.name: getattr(form, field.name) for field in dataclasses.fields(options)}
    return {name: value for name, value in values.items() if value is not None}
