"""Data files that cannot be: cases 101 to 113 of the list of bad inputs, through the command line.

Finer cases, such as every way in which an .npz or an IDX file can be damaged, is in test_data_files.py; a
worker that dies or hangs (112) and a file cut short between two reads (113) are in test_feed.py, test_prepared.py and
bench/reliability/loader_faults.py.
"""

# A case is a row, however long.

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from tests.train.bad_input import Case
from train.data import DataConfig
from train.data.preparation import prepare_images

IMAGES = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8)
LABELS = np.arange(12) % 2


def named(
    number: int, what: str, make: Callable[[Path], object], name: str, says: str, module: str = "train.vqgan"
) -> Case:
    """`--data.name` is a path that `make` has filled."""

    def prepare(folder: Path) -> list[str]:
        make(folder)
        return [module, "--run-dir", str(folder / "run"), "--data.name", str(folder / name)]

    return Case(number, what, prepare, says)


def rooted(number: int, what: str, name: str, files: dict[str, bytes], says: str) -> Case:
    """`--data.root` holds some files of a known set."""

    def prepare(folder: Path) -> list[str]:
        for path, data in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)
        return ["train.maskgit", "--run-dir", str(folder / "run"), "--data.name", name, "--data.root", str(folder)]

    return Case(number, what, prepare, says)


def ids(number: int, what: str, data: bytes, words: str, says: str) -> Case:
    def prepare(folder: Path) -> list[str]:
        (folder / "ids.bin").write_bytes(data)
        return ["train.data", "check", str(folder / "ids.bin"), *words.split()]

    return Case(number, what, prepare, says)


def text(number: int, what: str, make: Callable[[Path], object], says: str) -> Case:
    def prepare(folder: Path) -> list[str]:
        make(folder)
        return ["train.data", "prepare", str(folder / "x.txt"), str(folder / "out"), "--tokenizer", "bytes"]

    return Case(number, what, prepare, says)


def nothing(folder: Path) -> None:
    """There is nothing to make."""


def archive(**arrays: np.ndarray) -> Callable[[Path], None]:
    return lambda folder: np.savez_compressed(folder / "x.npz", **({"images": IMAGES, "labels": LABELS} | arrays))


def pictures(change: Callable[[Path], object]) -> Callable[[Path], object]:
    """A folder of two classes, one of its pictures changed."""

    def make(folder: Path) -> object:
        for label in "ab":
            (folder / "set" / label).mkdir(parents=True)
            for index in range(3):
                Image.fromarray(IMAGES[index]).save(folder / "set" / label / f"{index}.png")
        return change(folder / "set" / "b" / "1.png")

    return make


def prepared(change: Callable[[Path], object]) -> Callable[[Path], object]:
    """A prepared set, changed after it was written."""

    def make(folder: Path) -> object:
        archive()(folder)
        prepare_images(DataConfig(str(folder / "x.npz")), folder / "set", 2**20, lambda line: None)
        return change(folder / "set" / "train-images-00000.npy")

    return make


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def jpeg(path: Path) -> None:
    Image.fromarray(np.tile(IMAGES[0], (8, 8, 1))).save(path.with_suffix(".jpg"))
    path.with_suffix(".jpg").write_bytes(path.with_suffix(".jpg").read_bytes()[:700])


MNIST = "mnist/train-images-idx3-ubyte.gz"
CASES = [
    named(101, "no folder", nothing, "none", r"none: expected a folder of pictures, got nothing there: correct the path in --data.name"),
    named(101, "no file", nothing, "none.npz", "none.npz: expected a readable .npz file, got No such file", "train.maskgit"),
    named(101, "a folder for a file", lambda p: (p / "x.npz").mkdir(), "x.npz", "x.npz: expected a readable .npz file, got Is a directory"),
    rooted(101, "no file of a set that is not downloaded", "eurosat64", {}, "eurosat64_every10th.npz: expected a file, got nothing there.*SHA-256 [0-9a-f]{64}"),
    named(102, "an empty archive", lambda p: (p / "x.npz").touch(), "x.npz", "x.npz: expected an .npz file, got File is not a zip file"),
    named(102, "an empty picture", pictures(lambda p: p.write_bytes(b"")), "set", r"1.png: expected data, got an empty file"),
    rooted(102, "an empty IDX file", "mnist", {MNIST: b""}, "train-images-idx3-ubyte.gz: expected data, got an empty file"),
    text(102, "an empty text", lambda p: (p / "x.txt").touch(), "x.txt: expected data, got an empty file"),
    rooted(103, "a truncated IDX file", "mnist", {MNIST: gzip.compress(bytes(99))[:-9]}, "expected SHA-256 [0-9a-f]{64}.*truncated or altered"),
    named(103, "a truncated archive", lambda p: (archive()(p), cut(p / "x.npz")), "x.npz", "x.npz: expected an .npz file, got File is not a zip"),
    rooted(104, "another IDX file", "mnist", {MNIST: b"x"}, "expected SHA-256 440fcabf[0-9a-f]{56}, got 2d711642[0-9a-f]{56}"),
    rooted(105, "pickled CIFAR", "cifar10", {"cifar10/data_batch_1": b"\x80\x02."}, "data_batch_1: expected the binary version, got the pickled one"),
    named(105, "pickled objects", archive(labels=np.array([{}] * 12, object)), "x.npz", "array 'labels': expected dtype kind i or u.*got object"),
    named(106, "a label above the classes", archive(class_names=np.array(["a"])), "x.npz", "expected labels from 0 to 0, got label 1 at index 1"),
    named(106, "a negative label", archive(labels=LABELS - 1), "x.npz", "labels from 0 to .*, got label -1 at index 0"),
    named(107, "a PNG cut short", pictures(cut), "set", "b/1.png: expected a whole picture, got cut short"),
    named(107, "a JPEG cut short", pictures(jpeg), "set", "b/1.jpg: expected a whole picture"),
    named(107, "no picture", pictures(lambda p: p.write_bytes(b"<svg/>")), "set", "b/1.png: expected a whole picture"),
    named(108, "a bomb", archive(images=np.zeros((72, 1024, 1024, 1), np.uint8)), "x.npz", "packed no more than 200:1"),
    named(108, "a picture too large", pictures(lambda p: Image.new("1", (9000, 9000)).save(p)), "set", "at most 67,108,864 pixels"),
    named(109, "32 bits", pictures(lambda p: Image.fromarray(np.zeros((8, 8), np.float32)).save(p.with_suffix(".tif"))), "set", "at most 16 bits a channel, got mode F"),
    named(109, "several frames", pictures(lambda p: Image.fromarray(IMAGES[0]).save(p, save_all=True, append_images=[Image.fromarray(IMAGES[1])])), "set", "one still picture, got 2 frames"),
    ids(110, "an odd length", bytes(21), "", "ids.bin: expected a multiple of 2 bytes for uint16 ids, got 21 bytes"),
    ids(110, "an id above the vocabulary", np.array([1, 65], "<u2").tobytes(), "--vocab 65", "ids below the vocabulary's 65, got id 65 at token 1"),
    ids(110, "another type", np.arange(4, dtype="<u4").tobytes()[:6], "--vocab 70000", "a multiple of 4 bytes for uint32 ids, got 6 bytes"),
    ids(110, "shorter than a window", bytes(8), "--context 4", r"at least context \+ 1 = 5 tokens, got 4: take a longer text"),
    text(110, "no UTF-8", lambda p: (p / "x.txt").write_bytes(b"ab\xff"), "x.txt: expected UTF-8 text, got byte 0xff at offset 2"),
    named(111, "no images", archive(images=IMAGES[:0], labels=LABELS[:0]), "x.npz", "expected at least one image, got none"),
    named(111, "fewer images than a batch", archive(), "x.npz", "expected at least as many training images as --batch-size, 64, got [0-9]+"),
    named(111, "a class without pictures", lambda p: (pictures(nothing)(p), (p / "set" / "c").mkdir()), "set", "expected pictures .* in every class folder, got none in c"),
    named(113, "a shard altered", prepared(flipped), "set", "train-images-00000.npy: expected SHA-256 [0-9a-f]{64}, got [0-9a-f]{64}"),
    named(113, "a shard cut short", prepared(cut), "set", "train-images-00000.npy: expected [0-9,]+ bytes, got"),
]  # fmt: skip
