"""Files that are missing, damaged or hostile: one `DataError` each, naming the file, and never anything else."""

# A case is a row, however long.

import gzip
import hashlib
import io
import os
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from train.config.known import KnownFile
from train.data import DataConfig, DataError, load
from train.data.files.known_files import FILES, KnownFiles
from train.data.files.npz import Npz
from train.data.images.decode_cache import cached
from train.data.images.idx import read_idx
from train.data.images.picture import read_picture

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (20, 8, 8, 3), np.uint8)
LABELS = np.arange(20) % 4


def idx(array, magic=None, shape=None):
    """The bytes of an IDX file, before gzip."""
    shape = array.shape if shape is None else shape
    header = [0x800 | len(shape) if magic is None else magic, *shape]
    return struct.pack(f">{len(header)}I", *header) + array.tobytes()


def store(folder, contents, download=None):
    """A store that knows exactly these files and has written them below `folder`."""
    for name, data in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    files = {
        name: KnownFile(Path(name).name, len(data), hashlib.sha256(data).hexdigest()) for name, data in contents.items()
    }
    return KnownFiles((folder, folder.parent / "cache" / "data"), download, files)


def mnist(folder, **changes):
    """A small data set in MNIST's layout; `changes` replaces the unpacked bytes of train_images, train_labels,
    t10k_images or t10k_labels.
    """
    parts = {}
    for part, count in (("train", 12), ("t10k", 4)):
        parts[f"{part}_images"], parts[f"{part}_labels"] = (
            idx(IMAGES[:count, ..., 0]),
            idx((np.arange(count) % 10).astype(np.uint8)),
        )
    names = {key: f"mnist/{key.replace('_', '-')}-idx{3 if 'images' in key else 1}-ubyte.gz" for key in parts}
    return store(folder, {names[key]: gzip.compress(data, mtime=0) for key, data in (parts | changes).items()})


def npz(folder, name="made.npz", **arrays):
    np.savez_compressed(folder / name, **({"images": IMAGES, "labels": LABELS} | arrays))
    return DataConfig(str(folder / name))


def raw_npz(folder, **members):
    """An .npz with the given bytes as its members, to write headers that NumPy would not."""
    with zipfile.ZipFile(folder / "made.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return DataConfig(str(folder / "made.npz"))


def npy(header, data=b"", version=b"\x01\x00"):
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + data


def claim(shape, descr="|u1", fortran=False):
    return f"{{'descr': {descr!r}, 'fortran_order': {fortran}, 'shape': {shape!r}}}"


def folder(path, classes=("cat", "dog"), count=3, size=(8, 8), mode="RGB"):
    for label, name in enumerate(classes):
        (path / name).mkdir(parents=True)
        for index in range(count):
            Image.new(mode, size, label * 100 + index).save(path / name / f"{index}.png")
    return path


def png(width, height, rows=None, bits=8, colour=2, spoil=False):
    """A PNG written by hand: only `rows` of the rows that its header announces are there."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body))
            + kind
            + body
            + struct.pack(">I", zlib.crc32(kind + body) ^ (spoil and kind == b"IDAT"))
        )

    pixels = b"\0" * ((1 + 3 * width) * (height if rows is None else rows))
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(pixels, 9)) + chunk(b"IEND", b"")
    )


def with_picture(path, data, name="cat/bad.png"):
    folder(path)
    (path / name).write_bytes(data)
    return DataConfig(str(path))


def saved(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def altered(source, name, change):
    """The store after the bytes of one known file were changed by another program."""
    path = source.find(name)
    path.write_bytes(change(path.read_bytes()))
    return source


TRAIN = "mnist/train-images-idx3-ubyte.gz"
BAD_MNIST = [
    (
        "missing",
        lambda p: (lambda s: s.find(TRAIN).unlink() or s)(mnist(p)),
        r"train-images.*nothing there: put the file there .*SHA-256",
    ),
    ("empty", lambda p: altered(mnist(p), TRAIN, lambda data: b""), "expected data, got an empty file"),
    (
        "truncated",
        lambda p: altered(mnist(p), TRAIN, lambda data: data[:-9]),
        "expected SHA-256 [0-9a-f]{64}, got [0-9a-f]{64}: it is truncated",
    ),
    (
        "one bit altered",
        lambda p: altered(mnist(p), TRAIN, lambda data: data[:-1] + bytes([data[-1] ^ 1])),
        "train-images.*SHA-256",
    ),
    ("longer", lambda p: altered(mnist(p), TRAIN, lambda data: data + b"x"), r"expected at most \d+ bytes"),
    (
        "a folder",
        lambda p: (lambda s: (s.find(TRAIN).unlink(), (p / TRAIN).mkdir()) and s)(mnist(p)),
        "a readable file, got Is a directory",
    ),
    (
        "a link to itself",
        lambda p: (lambda s: (s.find(TRAIN).unlink(), (p / TRAIN).symlink_to(p / TRAIN)) and s)(mnist(p)),
        "a readable file",
    ),
    (
        "labels for images",
        lambda p: mnist(p, train_images=idx(LABELS.astype(np.uint8))),
        "magic number 0x803, got 0x801",
    ),
    (
        "images for labels",
        lambda p: mnist(p, train_labels=idx(IMAGES[..., 0])),
        "train-labels.*magic number 0x801, got 0x803",
    ),
    ("three bytes", lambda p: mnist(p, train_images=b"\0\0\x08"), "magic number"),
    (
        "dimensions beyond the bytes",
        lambda p: mnist(p, train_images=idx(IMAGES[..., 0], shape=(2**31, 8, 8))),
        r"\(2147483648, 8, 8\), got 1,280",
    ),
    (
        "overflowing dimensions",
        lambda p: mnist(p, train_images=idx(IMAGES[..., 0], shape=(2**32 - 1,) * 3)),
        "got 1,280",
    ),
    (
        "bytes after the pixels",
        lambda p: mnist(p, train_images=idx(IMAGES[:12, ..., 0]) + b"x"),
        "768 bytes for its dimensions .*got 769",
    ),
    (
        "no images",
        lambda p: mnist(p, train_images=idx(IMAGES[:0, ..., 0]), train_labels=idx(np.zeros(0, np.uint8))),
        "at least one image",
    ),
    (
        "a label above 9",
        lambda p: mnist(p, t10k_labels=idx(np.array([1, 2, 10, 3], np.uint8))),
        "t10k-labels.*0 to 9, got label 10 at index 2",
    ),
    (
        "fewer labels",
        lambda p: mnist(p, train_labels=idx(np.zeros(11, np.uint8))),
        r"expected 12 labels.*got shape \(11,\)",
    ),
]

BAD_NPZ = [
    ("missing", lambda p: DataConfig(str(p / "none.npz")), "none.npz: expected a readable .npz file"),
    ("empty", lambda p: (p / "made.npz").write_bytes(b"") or DataConfig(str(p / "made.npz")), "expected an .npz file"),
    ("text", lambda p: (p / "made.npz").write_bytes(b"hello") and DataConfig(str(p / "made.npz")), "made.npz: expected an .npz file, got File is not a zip"),
    ("names without labels", lambda p: np.savez(p / "made.npz", images=IMAGES, class_names=np.array(["a"])) or DataConfig(str(p / "made.npz")), "an array 'labels', got only"),
    ("labels from 1", lambda p: npz(p, labels=LABELS + 1), "training images of all 5 classes, got none of class 0 .'0'.: number the labels from 0 without gaps"),
    ("labels with gaps", lambda p: npz(p, labels=LABELS * 3), r"of all 10 classes, got none of class 1 .'1'., 2 .'2'., 4 .'4'. and 3 more: number"),
    ("a named class without images", lambda p: npz(p, class_names=np.array(list("abcde"))), "got none of class 4 .'e'.: number .* or take out the classes without images"),
    ("objects, stored", lambda p: np.savez(p / "made.npz", images=np.array([None, 1], object), labels=LABELS) or DataConfig(str(p / "made.npz")), r"array 'images': expected dtype kind u and rank 3 or 4, got object \(2,\): convert the array before numpy.savez$"),
    ("objects", lambda p: npz(p, images=np.array([[[{}]]], object)), "array 'images': expected dtype kind u and rank 3 or 4, got object"),
    ("objects as labels", lambda p: npz(p, labels=np.array([print], object)), "array 'labels': expected dtype kind i or u|array 'labels'"),
    ("float images", lambda p: npz(p, images=IMAGES / 255), "expected dtype kind u and rank 3 or 4, got float64"),
    ("16-bit images", lambda p: npz(p, images=IMAGES.astype(np.uint16)), "uint8 images from 0 to 255, got uint16"),
    ("flat images", lambda p: npz(p, images=IMAGES.reshape(20, -1)), r"got uint8 \(20, 192\)"),
    ("channels first", lambda p: npz(p, images=IMAGES.transpose(0, 3, 1, 2)), "put channels last"),
    ("float labels", lambda p: npz(p, labels=LABELS * 1.0), "array 'labels': .*got float64"),
    ("one-hot labels", lambda p: npz(p, labels=np.eye(4, dtype=int)[LABELS]), r"got int64 \(20, 4\)"),
    ("a negative label", lambda p: npz(p, labels=LABELS - 1), "got label -1 at index 0"),
    ("a huge label", lambda p: npz(p, labels=LABELS.astype(np.uint64) + 2**63), "labels from 0 to 19, got label"),
    ("a label without a name", lambda p: npz(p, class_names=np.array(["a", "b"])), "labels from 0 to 1, got label 3 at index 3"),
    ("names that are numbers", lambda p: npz(p, class_names=np.arange(4)), "array 'class_names'"),
    ("fewer labels", lambda p: npz(p, labels=LABELS[:7]), r"20 labels, one for each image, got shape \(7,\)"),
    ("no images", lambda p: npz(p, images=IMAGES[:0], labels=LABELS[:0]), "at least one image"),
    ("one image of each class", lambda p: npz(p, images=IMAGES[:4], labels=LABELS[:4]), "two or more images of some class"),
    ("half a test part", lambda p: npz(p, test_images=IMAGES), "an array 'test_labels'"),
    ("a test part of another size", lambda p: npz(p, test_images=IMAGES[:, :4], test_labels=LABELS), r"\(test part\): expected images of \(8, 8, 3\)"),
    ("4 TB claimed", lambda p: raw_npz(p, images=npy(claim((2**20, 1000, 1000, 4))), labels=b""), "4,194,304,000,000 bytes .*got 0"),
    ("2**64 claimed", lambda p: raw_npz(p, images=npy(claim((2**62, 2, 2, 1)), b"abcd"), labels=b""), "array 'images'"),
    ("a negative side", lambda p: raw_npz(p, images=npy(claim((-4, -1, 1, 1)), b"abcd"), labels=b""), "array 'images'"),
    ("bytes after the pixels", lambda p: raw_npz(p, images=npy(claim((1, 2, 2, 1)), b"abcde"), labels=b""), "4 bytes for uint8 .*got 5"),
    ("a header of code", lambda p: raw_npz(p, images=npy("__import__('os').abort()"), labels=b""), "array 'images': expected a whole array"),
    ("a header that is too long", lambda p: raw_npz(p, images=b"\x93NUMPY\x01\x00\xff\xff" + b" " * 65535, labels=b""), "array 'images'"),
    ("a header with an old type name", lambda p: raw_npz(p, images=npy(claim((1, 2, 2, 1), "|a1"), b"abcd"), labels=b""), r"array .images.: expected (dtype kind u .*got \|S1|a whole array)"),
    ("a header without its beginning", lambda p: raw_npz(p, images=npy(claim((1, 2, 2, 1))[10:], b"abcd"), labels=b""), "array 'images': expected a whole array"),
    ("an unknown version", lambda p: raw_npz(p, images=npy(claim((1, 1, 1, 1)), b"a", b"\x09\x00"), labels=b""), r"version \(9, 0\)"),
    ("text that is not Unicode", lambda p: raw_npz(p, images=npy(claim((20, 8, 8, 3)), IMAGES.tobytes()), labels=npy(claim((20,)), bytes(20)), class_names=npy(claim((1,), "<U1"), b"\xff" * 4)), "array 'class_names': expected Unicode text"),
    ("a bomb", lambda p: npz(p, images=np.zeros((80, 1024, 1024, 1), np.uint8)), r"packed no more than 200:1, got 83,8\d\d,\d\d\d unpacked"),
]  # fmt: skip

PHOTO = Image.fromarray(IMAGES[0])
BAD_FOLDERS = [
    ("missing", lambda p: DataConfig(str(p / "none")), "none: expected a folder of pictures, got nothing there"),
    ("a file", lambda p: (p / "x").write_bytes(b"x") and DataConfig(str(p / "x")), "x: expected a folder of pictures, got a file"),
    ("empty", lambda p: DataConfig(str(p)), r"expected pictures \(PNG, .*, got none: make one subfolder per class"),
    ("a class without pictures", lambda p: (folder(p) / "emu").mkdir() or DataConfig(str(p)), r"expected pictures .* in every class folder, got none in emu: "),
    ("a link to the parent", lambda p: (folder(p) / "dog2").symlink_to(p) or DataConfig(str(p)), "dog2: expected pictures of one class, got a link to a folder above it"),
    ("a picture that links to itself", lambda p: (folder(p) / "cat/z.png").symlink_to(p / "cat/z.png") or DataConfig(str(p)), "z.png: expected a readable file"),
    ("pictures of two sizes", lambda p: with_picture(p, saved(PHOTO.resize((9, 8)))), r"bad.png: expected \(8, 8\).*--data.image-size"),
    ("a test class of its own", lambda p: (folder(p / "train"), folder(p / "test", ("cat", "emu"))) and DataConfig(str(p)), "emu: expected one of the classes"),
    ("an empty picture", lambda p: with_picture(p, b""), "bad.png: expected data, got an empty file"),
    ("text", lambda p: with_picture(p, b"not a picture"), "bad.png: expected a whole picture"),
    ("SVG", lambda p: with_picture(p, b"<svg xmlns='x'/>"), "bad.png"),
    ("PostScript", lambda p: with_picture(p, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n"), "bad.png"),
    ("a PNG cut short", lambda p: with_picture(p, saved(PHOTO)[:-30]), "bad.png: expected a whole"),
    ("a PNG without its last rows", lambda p: with_picture(p, png(8, 8, rows=5)), "rows are missing: 125 of 200 bytes"),
    ("a PNG with a wrong CRC", lambda p: with_picture(p, png(8, 8, spoil=True)), "wrong CRC in chunk b'IDAT'"),
    ("a PNG of no pixels", lambda p: with_picture(p, png(0, 0)), "bad.png: expected a whole"),
    ("a PNG of 60000 x 60000", lambda p: with_picture(p, png(60_000, 60_000, rows=1)), "bad.png: expected at most 67,108,864 pixels"),
    ("a PNG of 10000 x 10000", lambda p: with_picture(p, png(10_000, 10_000, rows=1)), "at most 67,108,864 pixels"),
    ("a PNG just below Pillow's own limit", lambda p: with_picture(p, png(9000, 9000, rows=1)), "at most 67,108,864 pixels, got 9000 x 9000"),
    ("a JPEG cut short", lambda p: with_picture(p, saved(PHOTO.resize((64, 64)), "JPEG")[:700], "dog/bad.jpg"), "bad.jpg: expected a whole"),
    ("32 bits", lambda p: with_picture(p, saved(Image.fromarray(np.zeros((8, 8), np.float32)), "TIFF"), "cat/bad.tif"), "at most 16 bits a channel, got mode F"),
    ("HTML", lambda p: with_picture(p, b"<html>404</html>", "cat/bad.jpg"), "bad.jpg: expected a whole picture, got a file that begins with b'<html>404</h'"),
    ("a TIFF cut short", lambda p: with_picture(p, saved(PHOTO, "TIFF")[:-30], "cat/bad.tif"), "bad.tif: expected a whole picture, got (?!.*object at)"),
    ("a GIF cut short", lambda p: with_picture(p, saved(PHOTO, "GIF")[:-30], "cat/bad.gif"), "bad.gif: expected a whole picture"),
    ("a PPM cut short", lambda p: with_picture(p, saved(PHOTO, "PPM")[:-30], "cat/bad.ppm"), "bad.ppm: expected a whole picture"),
    ("a film", lambda p: with_picture(p, saved(PHOTO, "GIF", save_all=True, append_images=[PHOTO.rotate(90)]), "cat/bad.gif"), "one still picture, got 2 frames"),
    ("several frames", lambda p: with_picture(p, saved(PHOTO, save_all=True, append_images=[PHOTO.rotate(90)])), "one still picture, got 2 frames"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "message"), [case[1:] for case in BAD_MNIST], ids=[case[0] for case in BAD_MNIST])
def test_a_bad_idx_file_is_refused(make, message, tmp_path):
    with pytest.raises(DataError, match=message) as caught:
        load(DataConfig("mnist"), make(tmp_path / "data"))
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


BAD_PATHS = BAD_NPZ + BAD_FOLDERS


@pytest.mark.parametrize(
    ("make", "message"),
    [case[1:] for case in BAD_PATHS],
    ids=[f"npz {c[0]}" for c in BAD_NPZ] + [f"folder {c[0]}" for c in BAD_FOLDERS],
)
def test_a_bad_npz_or_image_folder_is_refused(make, message, tmp_path):
    with pytest.raises(DataError, match=message) as caught:
        load(make(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_good_set_in_each_layout_is_read(tmp_path):
    data = load(DataConfig("mnist"), mnist(tmp_path / "idx"))
    assert (data.train_images.shape, data.test_labels.tolist()) == ((12, 8, 8, 1), [0, 1, 2, 3])
    data = load(npz(tmp_path, images=np.asfortranarray(IMAGES), class_names=np.array(list("abcd"))))
    assert (data.train_images.shape, data.test_images.shape, data.class_names) == (
        (16, 8, 8, 3),
        (4, 8, 8, 3),
        tuple("abcd"),
    )
    assert {image.tobytes() for part in (data.train_images, data.test_images) for image in part} == {
        image.tobytes() for image in IMAGES
    }
    data = load(
        npz(tmp_path, "grey.npz", images=IMAGES[..., 0], test_images=IMAGES[:5, ..., 1], test_labels=LABELS[:5])
    )
    assert (data.image_shape, len(data.train_images), len(data.test_images), data.num_classes) == ((8, 8, 1), 20, 5, 4)
    data = load(DataConfig(str(folder(tmp_path / "rgb", count=6))))
    assert (data.train_images.shape, data.test_labels.tolist(), data.class_names) == (
        (10, 8, 8, 3),
        [0, 1],
        ("cat", "dog"),
    )
    folder(tmp_path / "split" / "train", mode="L")
    folder(tmp_path / "split" / "test", count=1)
    data = load(DataConfig(str(tmp_path / "split")))
    assert (data.train_images.shape, data.test_images.shape, data.train_labels.tolist()) == (
        (6, 8, 8, 3),
        (2, 8, 8, 3),
        [0, 0, 0, 1, 1, 1],
    )
    assert data.train_images[4].tolist() == [[[101, 101, 101]] * 8] * 8


def test_pictures_of_any_size_are_resized_and_cut_to_one(tmp_path):
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16, 0] = 255
    with_picture(tmp_path, saved(Image.fromarray(wide)))
    Image.new("RGB", (5, 3), (9, 9, 9)).save(tmp_path / "cat" / "small.png")
    data = load(DataConfig(str(tmp_path), image_size=8))
    assert data.image_shape == (8, 8, 3)
    assert read_picture(tmp_path / "cat" / "bad.png", 8).tolist() == [[[255, 0, 0]] * 8] * 8
    assert read_picture(tmp_path / "cat" / "small.png", 8).tolist() == [[[9, 9, 9]] * 8] * 8


KINDS = [
    ("palette", PHOTO.quantize(8), "PNG", 3),
    ("black and white", PHOTO.convert("1"), "PNG", 1),
    ("CMYK", PHOTO.convert("CMYK"), "JPEG", 3),
    ("interlaced rows", PHOTO.convert("L"), "PNG", 1),
    ("WebP", PHOTO, "WEBP", 3),
    ("BMP", PHOTO, "BMP", 3),
]


@pytest.mark.parametrize(("image", "kind", "channels"), [case[1:] for case in KINDS], ids=[case[0] for case in KINDS])
def test_every_still_8_bit_picture_is_read(image, kind, channels, tmp_path):
    (tmp_path / "x").write_bytes(saved(image, kind))
    assert read_picture(tmp_path / "x", None).shape == (8, 8, channels)


def test_what_is_transparent_becomes_white_and_what_lies_on_its_side_is_turned(tmp_path):
    Image.new("RGBA", (8, 8), (10, 20, 30, 0)).save(tmp_path / "clear.png")
    assert read_picture(tmp_path / "clear.png", None).min() == 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (16, 8)).save(tmp_path / "side.jpg", exif=exif)
    assert read_picture(tmp_path / "side.jpg", None).shape == (16, 8, 3)


def test_a_gzip_bomb_stops_at_the_limit():
    bomb = gzip.compress(bytes(2_000_000))
    with pytest.raises(DataError, match="at most 1,000,000 bytes unpacked"):
        read_idx("bomb.gz", bomb, 3, limit=1_000_000)
    cases = (
        (bomb[:-20], "cut short"),
        (bomb + bomb, "after its end"),
        (bomb[:-8] + bytes(8), "incorrect data check"),
        (b"x", "incorrect header|cut short"),
    )
    for data, message in cases:
        with pytest.raises(DataError, match=message):
            read_idx("bad.gz", data, 3)


def test_an_npz_with_one_name_twice_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("images.npy", npy(claim((1, 1, 1, 1)), b"a"))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("images.npy", npy(claim((1, 1, 1, 1)), b"b"))
    with pytest.raises(DataError, match="every array once"):
        load(DataConfig(str(tmp_path / "x.npz")))


def test_a_root_that_is_no_folder_is_refused_with_the_name_of_its_flag(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"x")
    for root, got in (("file", "a file"), ("none", "nothing there")):
        with pytest.raises(DataError, match=rf"{root}: expected a folder \(from --data.root\), got {got}"):
            load(DataConfig("mnist", root=str(tmp_path / root)))
    monkeypatch.setenv("EQXGEN_DATA", str(tmp_path / "none"))
    with pytest.raises(DataError, match="from EQXGEN_DATA"):
        load(DataConfig("mnist"))


def test_a_control_character_in_a_path_stays_out_of_the_message(tmp_path):
    with pytest.raises(DataError) as caught:
        load(DataConfig(str(tmp_path / "a\n\x1b[31m")))
    assert "a\\n\\x1b[31m: expected" in str(caught.value)


def cifar_batch(count, top=9):
    records = RNG.integers(0, 256, (count, 3073), np.uint8)
    records[:, 0] = np.arange(count) % (top + 1)
    return records.tobytes()


def cifar_tar(**changes):
    """The official archive in small: batches of 20."""
    names = [*(f"data_batch_{index}" for index in range(1, 6)), "test_batch"]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in {"../outside": b"x", **{name: cifar_batch(20) for name in names}, **changes}.items():
            if data is not None:
                info = tarfile.TarInfo(name if "/" in name else f"cifar-10-batches-bin/{name}.bin")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


BAD_TARS = [
    ("a batch missing", lambda: cifar_tar(data_batch_3=None), "data_batch_3.bin in it, got 5 of 6 batches"),
    ("a short batch", lambda: cifar_tar(test_batch=b"x" * 100), "one file of 61,460 bytes"),
    ("a label of 10", lambda: cifar_tar(data_batch_1=cifar_batch(20, top=10)), "0 to 9, got label 10 at index 10"),
    ("cut short", lambda: cifar_tar()[:-5000], "expected a tar.gz archive|in it"),
    ("no archive", lambda: b"hello", "expected a tar.gz archive"),
]


def test_the_binary_cifar_archive_is_read_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("train.data.images.cifar._BATCH", 20)
    data = load(DataConfig("cifar10"), store(tmp_path / "data", {"cifar10/cifar-10-binary.tar.gz": cifar_tar()}))
    assert (data.train_images.shape, data.test_images.shape) == ((100, 32, 32, 3), (20, 32, 32, 3))
    assert data.train_labels[:12].tolist() == [*range(10), 0, 1]
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["cifar-10-binary.tar.gz"]


@pytest.mark.parametrize(("make", "message"), [case[1:] for case in BAD_TARS], ids=[case[0] for case in BAD_TARS])
def test_a_bad_cifar_archive_is_refused(make, message, tmp_path, monkeypatch):
    monkeypatch.setattr("train.data.images.cifar._BATCH", 20)
    with pytest.raises(DataError, match=message):
        load(DataConfig("cifar10"), store(tmp_path, {"cifar10/cifar-10-binary.tar.gz": make()}))


def test_the_pickled_cifar_is_refused(tmp_path):
    (tmp_path / "cifar10" / "cifar-10-batches-py").mkdir(parents=True)
    with pytest.raises(
        DataError, match=r"expected the binary version, got the pickled one, .*put cifar-10-binary.tar.gz beside it"
    ):
        load(DataConfig("cifar10"), KnownFiles((tmp_path,)))


def test_cifar_batches_are_read_in_their_own_right(tmp_path):
    buffers = {}
    for name, count in (("data_batch_1", 12), ("data_batch_4", 5), ("test_batch_first5000", 3)):
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer, images=RNG.integers(0, 256, (count, 32, 32, 3), np.uint8), labels=np.arange(count) % 10
        )
        buffers[f"cifar10/{name}.npz"] = buffer.getvalue()
    source = store(tmp_path / "data", buffers)
    data = load(DataConfig("cifar10"), source)
    assert (len(data.train_images), len(data.test_images), data.train_labels[12:].tolist()) == (17, 3, [0, 1, 2, 3, 4])
    source.find("cifar10/test_batch_first5000.npz").unlink()
    with pytest.raises(DataError, match=r"test_batch_first5000.npz: expected a file, got nothing there"):
        load(DataConfig("cifar10"), source)


def test_a_damaged_cache_entry_is_made_again_and_an_unwritable_cache_is_no_harm(tmp_path):
    calls = []
    decode = lambda: calls.append(1) or IMAGES
    for expected in (1, 1):
        np.testing.assert_array_equal(cached(tmp_path / "c", "key", decode), IMAGES)
        assert len(calls) == expected
    (entry,) = (tmp_path / "c").iterdir()
    entry.write_bytes(entry.read_bytes()[:-1] + b"\x00")
    np.testing.assert_array_equal(cached(tmp_path / "c", "key", decode), IMAGES)
    assert len(calls) == 2
    assert [path.name for path in (tmp_path / "c").iterdir()] == [entry.name]
    (tmp_path / "file").write_bytes(b"x")
    np.testing.assert_array_equal(cached(tmp_path / "file" / "c", "key", decode), IMAGES)
    assert len(calls) == 3


def mutants(data, count):
    """Copies with a few bytes changed, cut, repeated or removed."""
    rng = np.random.default_rng(1)
    for index in range(count):
        mutant = bytearray(data)
        for _ in range(rng.integers(1, 4)):
            place = int(rng.integers(len(mutant)))
            if index % 3 == 0:
                mutant[place] = rng.integers(256)
            elif index % 3 == 1:
                del mutant[place : place + int(rng.integers(1, 20))]
            else:
                mutant[place:place] = mutant[place : place + int(rng.integers(1, 20))]
            mutant = mutant or bytearray(b"\0")
        yield bytes(mutant)


def test_damaged_bytes_give_a_data_error_or_a_valid_array(tmp_path):
    buffer = io.BytesIO()
    np.savez(buffer, images=IMAGES[:2], labels=LABELS[:2])
    refused = dict.fromkeys(("npz", "idx", "gz", "png"), 0)
    for kind, data, read in (
        ("npz", buffer.getvalue(), lambda data: Npz("x", io.BytesIO(data)).read("images", (4,), "u")),
        ("idx", idx(IMAGES[:2, ..., 0]), lambda data: read_idx("x", gzip.compress(data, 0), 3)),
        ("gz", gzip.compress(idx(IMAGES[:2, ..., 0])), lambda data: read_idx("x", data, 3)),
        ("png", saved(PHOTO), lambda data: (tmp_path / "x").write_bytes(data) and read_picture(tmp_path / "x", None)),
    ):
        for mutant in mutants(data, 300):
            try:
                array = read(mutant)
            except DataError:
                refused[kind] += 1
            else:
                assert array.dtype == np.uint8
    assert refused["gz"] > 290
    assert min(refused.values()) > 100, refused


def test_every_known_file_has_a_sum_and_every_url_is_https():
    assert len(FILES) == 44
    for name, known in FILES.items():
        assert len(bytes.fromhex(known.sha256)) == 32
        assert known.size > 0
        assert all(url.startswith("https://") and url.endswith(Path(name).name) for url in known.urls)
        assert os.path.dirname(name) in (
            "mnist",
            "fashion_mnist",
            "cifar10",
            "eurosat64",
            "emoji64",
            "tiny_shakespeare",
            "isbi_membrane",
            "fsdd",
            "text_classification",
            "glue",
            "cmudict",
        )
