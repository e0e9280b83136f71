"""From a name to `Pairs`: the known set, and a folder."""

import io
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from ..._errors import DataError
from ...config.known import KNOWN
from ...config.pairs import MaskClass, PairConfig
from ..files.broken import Say, read_each
from ..files.known_files import KnownFiles
from ..files.listing import Listing, counted, first, list_files, parts_of
from ..files.npz import Npz
from ..images.held_out import held_out
from ..images.picture import SUFFIXES, read_picture
from .pairs import Pairs, Part, classes_of, labelled

LEFT_OUT = tuple(range(25, 30))
"""Images of `isbi_membrane` that are held out, by their number in the published stack: neighbours of each other, so
that one alone, 25, is next to an image of the training part."""
_FOUND = 32  # values of a folder's masks that become classes by themselves


def load_pairs(config: PairConfig, files: KnownFiles | None = None, say: Say = print) -> Pairs:
    """The images and masks that `config` names.

    Raises:
        DataError: a file is missing or damaged, an image has no mask, a mask has another size or a value of no class,
            or there are fewer than two classes.
    """
    if config.is_path:
        return _folder(Path(config.name).expanduser(), config, say)
    return _isbi(files or KnownFiles.of(config), config)


def _isbi(files: KnownFiles, config: PairConfig) -> Pairs:
    """Sections of a fly's nerve cord by electron microscopy. Source: Cardona et al. 2010, and Arganda-Carreras et al.
    2015.
    """
    name = "isbi_membrane"
    path, data = files.read(f"{name}/{name}.npz")
    npz = Npz(path, io.BytesIO(data))
    images, masks = npz.read("images", (3,), "u")[..., None], npz.read("masks", (3,), "u")[..., None]
    values = (0,), (255,)
    classes = config.listed or tuple(MaskClass(*row) for row in zip(values, KNOWN[name].masks))
    kept = [row for row in range(len(images)) if row not in LEFT_OUT]

    def part(rows: list[int]) -> Part:
        labels = tuple(labelled(f"{name} {row}", masks[row], classes) for row in rows)
        return Part(tuple(map(str, rows)), tuple(images[row] for row in rows), labels)

    return Pairs(name, part(kept), part(list(LEFT_OUT)), classes)


def _folder(path: Path, config: PairConfig, say: Say) -> Pairs:
    if not path.is_dir():
        got = "a file" if path.exists() else "nothing there"
        raise DataError(path, "a folder with images/ and masks/", got, "correct the path in --data.name")
    listing = Listing()
    parts = parts_of(path, listing) or ("",)
    read = {part: _read(path, part, config, listing, say) for part in parts}
    raw = [mask for _, _, masks in read.values() for mask in masks]
    classes = config.listed or classes_of(_alike(raw), _FOUND)
    if not classes:
        hint = "save masks as PNG, or list the classes with --data.classes"
        raise DataError(path / "masks", f"at most {_FOUND} values of pixels", "more", hint)
    depth = 3 if any(image.shape[2] == 3 for _, images, _ in read.values() for image in images) else 1

    def made(part: str) -> Part:
        names, images, masks = read[part]
        files = [str(path / part / "masks" / name) for name in names]
        labels = [labelled(name, mask, classes) for name, mask in zip(files, _of_depth(masks, len(classes[0].value)))]
        return Part(tuple(files), tuple(_of_depth(images, depth)), tuple(labels))

    if len(parts) == 2:
        train, test = map(made, parts)
    else:
        whole = made("")
        held = held_out(np.zeros(len(whole), np.int32), config.held_out, str(path))
        train, test = _chosen(whole, ~held), _chosen(whole, held)
    kinds = ", ".join(kind.name for kind in classes[:4]) + (" ..." if len(classes) > 4 else "")
    held = f"{len(test):,} held out{f', of {parts[-1]}/' if parts[-1] else ''}"
    shown = f"{counted(len(train), 'image')} to train on, {held}; {len(classes)} classes: {kinds}"
    say(f"{path}: {shown}; {listing.left_out()}")
    return Pairs(path.resolve().name, train, test, classes)


def _read(
    path: Path, part: str, config: PairConfig, listing: Listing, say: Say
) -> tuple[list[str], list[np.ndarray], list[np.ndarray]]:
    """Names, images and masks of `images` and `masks` of a part, paired by their names without the ending. Other files
    are added to the listing.

    Raises:
        DataError: an image has no mask, or two have one name; a folder is missing.
    """
    found: dict[str, dict[str, str]] = {}
    folder = path / part
    for kind in ("images", "masks"):
        if not (folder / kind).is_dir():
            raise DataError(folder, "folders images and masks", f"no {kind}", "put the pictures into these two folders")
        below = list_files(folder / kind, SUFFIXES)
        names = below.found
        listing.add(Listing(skipped=below.skipped), f"{part}/{kind}/" if part else f"{kind}/")
        found[kind] = {name.rpartition(".")[0]: name for name in names}
        if len(found[kind]) < len(names):
            twice = [name for name in names if name not in found[kind].values()]
            raise DataError(folder / kind, "each name once", f"{first(twice)} twice", "take one of them out")
    images, masks = found["images"], found["masks"]
    if alone := [name for stem, name in images.items() if stem not in masks]:
        got = f"{len(alone):,} of {len(images):,} without: {first(alone)}"
        raise DataError(folder / "masks", "a mask of the name of each image", got, "add the masks, or take these out")
    if left := [name for stem, name in masks.items() if stem not in images]:
        say(f"{folder / 'masks'}: {counted(len(left), 'mask')} without an image left out: {first(left)}")
    stems = sorted(images)
    read = lambda kind, names: read_each(
        folder / kind,
        names,
        lambda path: read_picture(path, None, exact=kind == "masks"),
        skip=config.skip_broken,
        say=say,
        threads=config.threads,
    )
    pictures, drawn = (read(kind, [found[kind][stem] for stem in stems]) for kind in ("images", "masks"))
    rows = [
        (masks[stem], image, mask)
        for stem, image, mask in zip(stems, pictures, drawn)
        if image is not None and mask is not None
    ]
    return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]


def _alike(masks: list[UInt8[np.ndarray, "..."]]) -> list[UInt8[np.ndarray, "..."]]:
    """Masks with 3 channels each where one of them has colours."""
    return _of_depth(masks, max((mask.shape[2] for mask in masks), default=1))


def _of_depth(pictures: list[UInt8[np.ndarray, "..."]], channels: int) -> list[UInt8[np.ndarray, "..."]]:
    """Grey pictures with as many channels; colours stay, so that a value that is no grey level is not lost."""
    return [np.repeat(x, channels, axis=2) if x.shape[2] == 1 and channels == 3 else x for x in pictures]


def _chosen(part: Part, rows: np.ndarray) -> Part:
    keep = lambda values: tuple(value for value, kept in zip(values, rows) if kept)
    return Part(keep(part.names), keep(part.images), keep(part.masks))
