"""Convert published weights: in, to the published layout again, or to the names of a run's model.

  python -m train.convert --from ./gpt2 --to ./gpt2-again                        # the published layout, as safetensors
  python -m train.convert --from ./gpt2/pytorch_model.bin --to ./ours --as eqxgen          # for --from of a recipe
  python -m train.convert --from last.ckpt --key state_dict --to ./plain --as torch-names  # another format alone
  python -m train.convert --from runs/gpt-nano --family gpt2 --to ./published              # a model that we trained
  python -m train.convert --from runs/gpt-nano --to ./onnx --as onnx                     # its forward pass (extra onnx)

Reads safetensors, torch's files, .npz, flax's .msgpack and Keras' .h5, of one file or several with an index. Prints the
sizes, the use of every array and, where the original library is installed, the largest difference between its outputs
and ours. The folder is written whole or not at all, and one that holds files is refused.
"""

import dataclasses
import json
import math
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ._errors import UsageError, UserError, printable, require
from ._files import read_json, writing
from .config import flags
from .config.options import option
from .engine.command import run

if TYPE_CHECKING:
    from eqxgen.pretrained.formats.stored import Stored


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Weights to convert, and the folder for them."""

    source: str = option(first=True, alias="from")
    """Folder of a published model or of a run, or a file of weights."""
    target: str = option(first=True, alias="to")
    """Folder to write, which must be empty or not there."""
    layout: Literal["hf", "eqxgen", "torch-names", "onnx"] = option("hf", first=True, alias="as")
    """The published names (hf), the paths of our model (eqxgen), the names as they are in the file (torch-names),
    or the forward pass of a run's model as model.onnx (onnx)."""
    family: str | None = option(None, first=True)
    """Family of the model; by default the one that its config.json names."""
    key: str | None = option(None, first=True)
    """Dictionary within a file that holds several, such as state_dict."""
    parity: bool = option(True, first=True)
    """Compares the outputs with those of the original library, where it is installed."""
    mesh: str | None = option(None, first=True)
    """Devices that share the parameters of a comparison out, as in training: fsdp=8. Writing needs none."""

    def __post_init__(self):
        require(self.source.strip() != "" and self.target.strip() != "", "from and to must be paths: got ''")


def main(config: Config) -> int:
    source, target = Path(config.source).expanduser(), Path(config.target).expanduser()
    if not source.exists():
        hint = f"; for a model of the hub: hf download {config.source} --local-dir FOLDER"
        hint = printable(hint) if re.fullmatch(r"[\w.-]+/[\w.-]+", config.source) else ""
        raise UsageError(
            f"--from {printable(config.source)}: must be a folder or a file of weights: there is none{hint}"
        )
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"--to {printable(config.target)}: must be an empty folder, or not there: it holds files")
    if config.layout == "onnx":
        return _onnx(source, target, config)
    try:
        arrays, more, check = _NAMES[config.layout](source, config)
    except (ValueError, ModuleNotFoundError) as error:
        raise UserError(f"--from {error}") from None
    _write(target, arrays, more)
    print(f"wrote {target}: {_size(arrays)}")
    if config.parity:
        for line in check(target):
            print(line)
    return 0


Made = tuple[dict[str, "Stored"], dict[str, Any] | None, Callable[[Path], list[str]]]
"""Arrays to write, values of config.json, and the lines of a comparison with what is written."""


def _published(source: Path, config: Config) -> Made:
    """The arrays under published names, and config.json."""
    from eqxgen.pretrained import family_of, named
    from eqxgen.pretrained.family import evenly

    from .parallel.mesh import make_mesh
    from .report import parity

    mesh = None if config.mesh is None else make_mesh(config.mesh)
    if record := _run(source):
        if config.family is None:
            raise ValueError(
                f"{source}: is the folder of a run: give --family, the published architecture of its model"
            )
        from .engine.recipes import recipe_of

        where = source / "config.json"
        family = named(config.family)
        model = recipe_of(record, where).open(source, record, where).model(mesh)
        load = lambda: model
    else:
        family = family_of(source, config.family)
        print(f"{source}: {(opened := family.open(source, key=config.key)).coverage.line}")
        model, load = opened.stored(), lambda: opened.load(place=None if mesh is None else evenly(mesh))
    arrays, values = family.published(model)
    return arrays, values, lambda target: parity.report(family, load, target)


def _ours(source: Path, config: Config) -> Made:
    """The arrays under the paths of our model."""
    from eqxgen.pretrained import family_of

    opened = family_of(source, config.family).open(source, key=config.key)
    print(f"{source}: {opened.coverage.line}")
    return opened.leaves, None, lambda target: [f"for --from {target / 'model.safetensors'} of a recipe"]


def _same_names(source: Path, config: Config) -> Made:
    """The arrays under the names that they have."""
    from eqxgen.pretrained import files

    arrays = files.open_arrays(source, config.key)
    beside = files.config_of(source)
    return arrays, files.read_json(beside) if beside.exists() else None, lambda target: []


def _onnx(source: Path, target: Path, config: Config) -> int:
    """Writes model.onnx of a run."""
    for name, value in (("family", config.family), ("key", config.key), ("mesh", config.mesh)):
        if value is not None:
            raise UsageError(f"--{name} goes with published weights: got it with --as onnx, which takes a run")
    if not (record := _run(source)):
        raise UsageError(f"--from {printable(config.source)}: must be the folder of a run with --as onnx: it is none")
    from eqxgen._files import part_of, sync

    from .engine.recipes import recipe_of
    from .report.onnx import write_onnx

    where = source / "config.json"
    run, part = recipe_of(record, where).open(source, record, where), part_of(target)
    with writing(target):
        try:
            part.mkdir(parents=True)
            lines = write_onnx(run, part / "model.onnx")
            if target.exists():
                target.rmdir()
            part.replace(target)
        except (ValueError, ModuleNotFoundError) as error:
            raise UserError(f"--as onnx: {error}") from None
        finally:
            shutil.rmtree(part, ignore_errors=True)
        sync(target.parent)
    print("\n".join([f"wrote {target / 'model.onnx'}", *lines]))
    return 0


_NAMES: dict[str, Callable[[Path, Config], Made]] = {"hf": _published, "eqxgen": _ours, "torch-names": _same_names}


def _run(source: Path) -> dict[str, Any]:
    """The record of a run; empty for anything else."""
    where = source / "config.json"
    record = read_json(where) if where.exists() else {}
    return record if isinstance(record, dict) and "recipe" in record else {}


def _write(target: Path, arrays: "dict[str, Stored]", values: dict[str, Any] | None) -> None:
    """Writes the folder under another name first."""
    from eqxgen._files import part_of, sync
    from eqxgen.pretrained import files

    part = part_of(target)
    with writing(target):
        try:
            part.mkdir(parents=True)
            if values is not None:
                (part / files.CONFIG).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
            files.write_arrays(part / files.weights_name(values or {}), values or {}, arrays)
            if target.exists():
                target.rmdir()
            part.replace(target)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        sync(target.parent)


def _size(arrays: "dict[str, Stored]") -> str:
    entries = sum(math.prod(stored.shape) for stored in arrays.values())
    size = sum(math.prod(stored.shape) * stored.dtype.itemsize for stored in arrays.values())
    kinds = ", ".join(sorted({str(stored.dtype) for stored in arrays.values()}))
    return f"{len(arrays)} arrays of {entries / 1e6:,.2f} M entries in {kinds}, {size / 1e6:,.1f} MB"


def command() -> int:
    return main(flags.parse(Config, "convert", __doc__ or "", sys.argv[1:]))


if __name__ == "__main__":
    run(command)
