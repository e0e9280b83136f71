"""Flags of `python -m train.sample` that kinds of runs share. Imports nothing heavy."""

import dataclasses
import typing
from typing import Any, TypeVar

from .._errors import UsageError, UserError, require

Form = TypeVar("Form")


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageSample(Sample):
    """Images in one grid."""

    out: str = "samples.png"
    """PNG file to write."""
    n: int = 64
    """Number of images."""
    label: int | None = None
    """Class of all images; by default the classes in turn."""
    columns: int = 8
    """Images in a row of the grid."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("n", "columns"):
            require(getattr(self, name) >= 1, f"{name} must be at least 1: got {getattr(self, name)}")
        require(self.label is None or self.label >= 0, f"label must be at least 0: got {self.label}")
        require(self.out.lower().endswith(".png"), f"out must be the name of a .png file: got {self.out!r}")

    def check_label(self, classes: int) -> None:
        """Raises `UsageError` unless the label is one of the run's classes."""
        if self.label is not None and self.label >= classes:
            raise UsageError(f"--label must be in [0, {classes}): got {self.label}")

    def save(self, images: Any) -> int:
        """Writes images `(n, height, width, channels)` in [-1, 1]; gives the exit status."""
        import numpy as np

        from ..data import image_grid, save_png

        pixels = np.rint((np.clip(images, -1, 1) + 1) * 127.5).astype(np.uint8)
        try:
            save_png(self.out, image_grid(pixels, self.columns))
        except UserError as error:
            raise UserError(f"--out {error}") from None
        print(f"{len(images)} images in {self.out}")
        return 0


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
            raise ValueError(str(error).removeprefix(prefix)) from None

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
