"""Files that are damaged, forged or too large are refused in one line with their name, and nothing of them runs."""

import gzip
import io
import json
import tarfile
import time
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest

from eqxgen.pretrained import files as folders
from eqxgen.pretrained.formats import open_file
from eqxgen.pretrained.formats.stored import ARRAYS
from tests import oracles
from tests.full import FULL
from tests.pretrained.files import (
    VALUES,
    call,
    entry,
    extension,
    mapping,
    named,
    npy,
    number,
    packed,
    safetensors_file,
    tensor,
    text,
    torch_file,
    zip_file,
)

DAMAGED = "this file is damaged"
PACKED = "an archive or a compressed file: unpack it, and give the file within"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 548105171\n"
GOOD = mapping(a=tensor())


def raw(data):
    return lambda path: path.write_bytes(data)


def safe(header, **more):
    return lambda path: safetensors_file(path, header, **more)


def one(**fields):
    return safe({"a": entry() | fields})


def torch(value, **more):
    return lambda path: torch_file(path, value, **more)


def npz(**entries):
    return lambda path: zip_file(path, **entries)


def msgpack(value, more=b""):
    return lambda path: path.write_bytes((value if isinstance(value, bytes) else packed(value)) + more)


def inner_zip():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.npy", npy((2, 3)))
    return buffer.getvalue()


def tar():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        entry = tarfile.TarInfo("../../escaped")
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"data"))
    return buffer.getvalue()


def nested(depth, around, inner):
    return around * depth + inner


def encrypted(path):
    zip_file(path, a__npy=npy((2, 3)))
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(data))


def twice(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", npy((2, 3)))
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.npy", npy((2, 3)))


def short(make, cut):
    def write(path):
        make(path)
        path.write_bytes(path.read_bytes()[:cut])

    return write


def old(path):
    path.write_bytes(oracles.load("torch_files")["old"]["file"].tobytes())


def many_arrays(path):
    safetensors_file(path, {str(i): 0 for i in range(ARRAYS + 1)}, b"")


CIRCLE = b"}q\x00" + text("a") + b"h\x00s"  # a dictionary that holds itself
LAUGHS = (
    b"}q\x00("
    + text("t")
    + tensor()
    + b"u"
    + b"".join(  # each level holds the one before a hundred times
        b"}q" + bytes([i]) + b"(" + b"".join(text(str(j)) + b"h" + bytes([i - 1]) for j in range(100)) + b"u"
        for i in range(1, 7)
    )
)
TAR = tar()
BOMB = b"\x00" * 90_000_000

CASES = [
    # safetensors
    ("empty", "safetensors", raw(b""), DAMAGED),
    ("seven bytes", "safetensors", raw(b"\x01" * 7), DAMAGED),
    ("a header of no bytes", "safetensors", safe(b"", length=0), f"{DAMAGED}.* got 0 in a file"),
    ("a header longer than the file", "safetensors", safe({}, length=500), f"{DAMAGED}.*got 500"),
    ("a header of 2^63 bytes", "safetensors", safe({}, length=2**63), DAMAGED),
    ("a header of 2^64 - 1 bytes", "safetensors", safe({}, length=2**64 - 1), DAMAGED),
    ("a header that is no UTF-8", "safetensors", safe(b'{"\xff": 1}'), DAMAGED),
    ("a header that is no JSON", "safetensors", safe(b"{nothing}"), DAMAGED),
    ("a header that is a list", "safetensors", safe([]), "a JSON object, got list"),
    ("a header that is null", "safetensors", safe(None), "a JSON object, got NoneType"),
    ("brackets within each other", "safetensors", safe(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), DAMAGED),
    ("a name given twice", "safetensors", safe(b'{"a":1,"a":2}'), "a name is given twice"),
    ("bytes after the end", "safetensors", safe({"a": entry()}, data=VALUES.tobytes() + b"x"), DAMAGED),
    ("bytes that are missing", "safetensors", safe({"a": entry()}, data=VALUES.tobytes()[:-1]), DAMAGED),
    ("no bytes", "safetensors", safe({"a": entry()}, data=b""), DAMAGED),
    ("arrays at the same bytes", "safetensors", safe({"a": entry(), "b": entry()}), "no gap and no overlap"),
    ("arrays that overlap", "safetensors", safe({"a": entry(), "b": entry(offsets=[12, 36])}, data=b"\0" * 36), "no overlap"),
    ("a gap", "safetensors", safe({"a": entry(offsets=[4, 28])}, data=b"\0" * 28), "no gap"),
    ("an end before the begin", "safetensors", one(data_offsets=[24, 0]), DAMAGED),
    ("a negative offset", "safetensors", one(data_offsets=[-24, 0]), DAMAGED),
    ("an offset with a fraction", "safetensors", one(data_offsets=[0, 24.0]), DAMAGED),
    ("three offsets", "safetensors", one(data_offsets=[0, 24, 24]), DAMAGED),
    ("no offsets", "safetensors", safe({"a": {"dtype": "F32", "shape": [2, 3]}}), DAMAGED),
    ("no shape", "safetensors", safe({"a": {"dtype": "F32", "data_offsets": [0, 24]}}), DAMAGED),
    ("an array that is a number", "safetensors", safe({"a": 3}), DAMAGED),
    ("a negative size", "safetensors", one(shape=[-2, -3]), DAMAGED),
    ("a size that is text", "safetensors", one(shape=["2", 3]), DAMAGED),
    ("a size that is true", "safetensors", one(shape=[True, 6]), DAMAGED),
    ("sizes whose product overflows", "safetensors", one(shape=[2**32, 2**32]), DAMAGED),
    ("an empty array of a huge size", "safetensors", one(shape=[0, 2**60], data_offsets=[0, 0]), "sizes from 0 to 2"),
    ("sixty-five axes", "safetensors", one(shape=[1] * 65), "at most 8 axes, got 65"),
    ("another number of bytes", "safetensors", one(shape=[2, 4]), r"32 bytes of F32\[2, 4\]"),
    ("another type's bytes", "safetensors", one(dtype="F64"), "48 bytes of F64"),
    ("an unknown type", "safetensors", one(dtype="F128"), "one of BOOL.*got F128"),
    ("a type that is a number", "safetensors", one(dtype=4), DAMAGED),
    ("metadata that are a number", "safetensors", safe({"__metadata__": {"a": 3}}, data=b""), "__metadata__"),
    ("a name without letters", "safetensors", safe({"": entry()}), "names of 1 to 512 printable"),
    ("a name with control characters", "safetensors", safe({"a\x1b[2J\0": entry()}), r"printable characters, got 'a\\x1b\[2J\\x00'"),
    ("a name of a million letters", "safetensors", safe({"a" * 1_000_000: entry()}), "names of 1 to 512"),
    ("a name that is a path", "safetensors", safe({"../../etc/passwd": entry()}), "no paths to other folders"),
    ("a name from the root", "safetensors", safe({"/etc/passwd": entry()}), "no paths to other folders"),
    ("a hundred thousand arrays and one", "safetensors", many_arrays, "at most 100,000 arrays, got 100,001"),
    ("a pickle by that name", "safetensors", raw(b"\x80\x02" + GOOD + b"."), DAMAGED),
    ("a zip by that name", "safetensors", torch(GOOD), DAMAGED),
    # torch
    ("a system call", "pt", torch(call("os", "system", text("true"))), "got os.system: nothing else of a pickle is read"),
    ("a built-in", "pt", torch(mapping(a=call("builtins", "eval", text("1")))), "got builtins.eval"),
    ("a function of torch", "pt", torch(mapping(a=call("torch.hub", "load", text("x")))), "got torch.hub.load"),
    ("a name with a line in it", "pt", torch(b"\x8c\x02os\x8c\x08sys\ntem\x1b\x93)R"), r"os\.sys\\ntem\\x1b"),
    ("a type that is called", "pt", torch(call("torch", "FloatStorage", number(2**40))), "a call of torch.FloatStorage"),
    ("an object of a class", "pt", torch(named("collections", "OrderedDict") + b")\x81."), "the opcode NEWOBJ"),
    ("an instance", "pt", torch(b"(ios\nsystem\n"), "the opcode INST"),
    ("an extension of the registry", "pt", torch(b"\x82\x01"), "extension|the opcode EXT1"),
    ("attributes of a tuple", "pt", torch(b")}b"), "attributes of an object"),
    ("a tuple as a key", "pt", torch(b"})K\x01s"), "a tuple as the key"),
    ("an unfinished pickle", "pt", torch(b"}("), DAMAGED),
    ("a stack that is empty", "pt", torch(b"R"), DAMAGED),
    ("a memo that is empty", "pt", torch(b"h\x07"), DAMAGED),
    ("a tensor alone", "pt", torch(tensor()), "a dictionary of tensors, got a tensor: save model.state_dict"),
    ("a circle", "pt", torch(CIRCLE), "got a circle or more"),
    ("a billion references", "pt", torch(LAUGHS), "at most 10,000 dictionaries in 8 levels, got a circle or more"),
    ("more entries than the storage", "pt", torch(mapping(a=tensor((2, 4), (4, 1)))), "at most the 6 entries"),
    ("an offset beyond the storage", "pt", torch(mapping(a=tensor(offset=1))), "6 up to 6"),
    ("a huge stride", "pt", torch(mapping(a=tensor(strides=(2**40, 1)))), "at most the 6 entries"),
    ("a negative stride", "pt", torch(mapping(a=tensor(strides=(-3, 1)))), "no count where a count must be"),
    ("a claim of terabytes by a stride of zero", "pt", torch(mapping(a=tensor((2**20, 2**20), (0, 0)))), "at most the 6 entries"),
    ("a stride too few", "pt", torch(mapping(a=tensor(strides=(1,)))), "a stride for each axis"),
    ("nine axes", "pt", torch(mapping(a=tensor((1,) * 9, (0,) * 9))), "at most 8 axes"),
    ("a storage that is not there", "pt", torch(mapping(a=tensor(key="7"))), r"24 bytes of a in storage 7.*got none"),
    ("a storage elsewhere", "pt", torch(mapping(a=tensor(key="../../../etc/passwd"))), "got none"),
    ("a storage that is too short", "pt", torch(GOOD, data=b"123"), "24 bytes of a in storage 0.*got 3"),
    ("a storage of no type", "pt", torch(mapping(a=tensor(kind="Size"))), "a storage of an unknown kind"),
    ("a storage that is compressed", "pt", torch(GOOD, compress=zipfile.ZIP_DEFLATED), "not compressed"),
    ("a zip without a pickle", "pt", npz(a__npy=npy((2, 3))), "one data.pkl, as torch writes, got 0"),
    ("the other order of bytes", "pt", torch(GOOD, byteorder=b"big"), "little-endian"),
    ("a pickle that is not torch's", "pt", raw(b"\x80\x02" + GOOD + b"."), "another pickle: save model.state_dict"),
    ("something else", "pt", raw(b"MZ" * 10), DAMAGED),
    ("no bytes at all", "pt", raw(b""), DAMAGED),
    ("an old file cut short", "pt", short(old, -1), DAMAGED),
    ("an old file with more bytes", "pt", lambda path: (old(path), path.write_bytes(path.read_bytes() + b"x")), DAMAGED),
    ("half an archive", "pt", short(torch(GOOD), 300), DAMAGED),
    ("values beside the tensors", "pt", torch(mapping(a=tensor(), epoch=number(3))), "arrays alone, got epoch beside them"),
    ("two dictionaries", "pt", torch(mapping(model=GOOD, ema=GOOD)), "several: model, ema: choose one by key="),
    ("no tensors", "pt", torch(b"}"), "several: none"),
    # npz
    ("an object", "npz", npz(a__npy=npy((1,), "|O", b"\x80\x02}.")), "numbers in a, got object"),
    ("a header of 60 kB", "npz", npz(a__npy=npy((2, 3), "<f4" + " " * 60_000)), DAMAGED),
    ("a size of -1", "npz", npz(a__npy=npy((-1,))), "sizes from 0"),
    ("a claim of 4 TB", "npz", npz(a__npy=npy((2**40,))), "4,398,046,511,232 bytes of a, as its header says"),
    ("code for a header", "npz", npz(a__npy=npy("__import__('os')")), DAMAGED),
    ("a name that is a path to elsewhere", "npz", npz(**{"../a__npy": npy((2, 3))}), "no paths to other folders"),
    ("an entry twice", "npz", twice, "every entry once"),
    ("an encrypted entry", "npz", encrypted, "without a password"),
    ("zeros that blow up", "npz", lambda p: zip_file(p, zipfile.ZIP_DEFLATED, a__npy=npy((22_500_000,), data=BOMB)), "at most 100 times the"),
    ("half an archive of arrays", "npz", short(npz(a__npy=npy((2, 3))), 100), DAMAGED),
    ("something else inside", "npz", npz(a__txt=b"x"), "entries that end in .npy"),
    ("texts", "npz", npz(a__npy=npy((1,), "<U6")), "numbers in a, got <U6"),
    # msgpack
    ("nothing", "msgpack", raw(b""), DAMAGED),
    ("the half of an array", "msgpack", short(msgpack({"a": VALUES}), 20), DAMAGED),
    ("bytes after the last", "msgpack", msgpack({"a": VALUES}, b"x"), DAMAGED),
    ("lists within each other", "msgpack", msgpack(nested(100_000, b"\x91", b"\xc0")), "at most 32 levels"),
    ("a list of four billion", "msgpack", msgpack(b"\xdd\xff\xff\xff\xff"), DAMAGED),
    ("a text of four gigabytes", "msgpack", msgpack(b"\xdb\xff\xff\xff\xff"), DAMAGED),
    ("a shape of other sizes", "msgpack", msgpack(b"\x81\xa1a" + extension(1, packed(((9, 9), "float32", b"1234")))), "float32.9, 9. as its bytes"),
    ("a type that is an object", "msgpack", msgpack(b"\x81\xa1a" + extension(1, packed(((1,), "object", b"12345678")))), "arrays of numbers, got object"),
    ("a type that is bytes", "msgpack", msgpack(b"\x81\xa1a" + extension(1, packed(((1,), b"float32", b"1234")))), "arrays of numbers, got"),
    ("another extension", "msgpack", msgpack(b"\x81\xa1a" + extension(5, b"")), "a value of type 5"),
    ("a number beside the arrays", "msgpack", msgpack({"a": VALUES, "step": 3}), "arrays alone, got int as step"),
    ("a key that is a number", "msgpack", msgpack(b"\x81\x01\x01"), "keys that are texts"),
    ("a key twice", "msgpack", msgpack(b"\x82\xa1a\xc0\xa1a\xc0"), "each once"),
    # archives of other kinds
    ("a tar by that name", "pt", raw(TAR), PACKED),
    ("a tar of arrays", "npz", raw(TAR), PACKED),
    ("a tar of parameters", "msgpack", raw(TAR), PACKED),
    ("a gzip", "safetensors", raw(gzip.compress(VALUES.tobytes())), PACKED),
    ("a gzip of a pickle", "pt", raw(gzip.compress(b"\x80\x02" + GOOD + b".")), PACKED),
    ("a gzip of parameters", "msgpack", raw(gzip.compress(packed({"a": VALUES}))), PACKED),
    ("a gzip by its name", "gz", raw(gzip.compress(VALUES.tobytes())), "got .gz: unpack it, and give the file within"),
    ("a pointer of Git LFS", "safetensors", raw(POINTER), "a pointer to one, as Git leaves it without LFS: run git lfs pull"),
    ("a pointer of Git LFS", "bin", raw(POINTER), "run git lfs pull"),
    ("a web page", "bin", raw(b"\n<!DOCTYPE html><html>404"), "a web page: fetch the file itself"),
    ("a zip within a zip", "npz", npz(a__npz=inner_zip()), "entries that end in .npy"),
    ("a zip for an array", "npz", npz(a__npy=inner_zip()), DAMAGED),
    ("a zip for a pickle", "pt", lambda p: zip_file(p, **{"archive/data__pkl": inner_zip()}), DAMAGED),
    ("a pickle that blows up", "pt", torch(b"\x80\x02" + b"N0" * 30_000_000, compress=zipfile.ZIP_DEFLATED), "not compressed"),
    ("an archive that starts with a program", "pt", lambda p: (torch(GOOD)(p), p.write_bytes(b"#!/bin/sh\n" + p.read_bytes())), DAMAGED),
    # other files
    ("another ending", "exe", raw(b"MZ"), r"ends in \.safetensors, .*got \.exe"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "make", "message"), [case[1:] for case in CASES], ids=[f"{c[1]}: {c[0]}" for c in CASES]
)
def test_a_hostile_file_is_refused(kind, make, message, tmp_path):
    path = tmp_path / f"file.{kind}"
    make(path)
    with pytest.raises(ValueError, match=message) as caught:
        open_file(path)
    said = str(caught.value)
    assert str(path) in said
    assert said.isprintable()
    assert len(said) < 700
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", ["safetensors", "pt", "npz", "msgpack"])
def test_a_file_cut_at_any_byte_is_refused_or_whole(kind, tmp_path):
    path = tmp_path / f"file.{kind}"
    WHOLE[kind](path)
    whole = path.read_bytes()
    for cut in range(0, len(whole), 1 if kind in ("safetensors", "msgpack") else 7):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match=r"file\."):
            open_file(path)


WHOLE = {
    "safetensors": safe({"a": entry()}),
    "pt": torch(GOOD),
    "npz": npz(a__npy=npy((2, 3))),
    "msgpack": msgpack({"a": VALUES}),
}


CHANGES = {
    "a byte": lambda rng, data: data[: (at := rng.integers(len(data)))] + rng.bytes(1) + data[at + 1 :],
    "several bytes": lambda rng, data: bytes(b if rng.random() > 0.03 else rng.integers(256) for b in data),
    "a huge number": lambda rng, data: data[: (at := rng.integers(len(data)))] + b"\xff" * 8 + data[at + 8 :],
    "a part again": lambda rng, data: data[: (at := rng.integers(len(data)))] + data[rng.integers(at + 1) :],
    "a part left out": lambda rng, data: data[: (at := rng.integers(len(data)))] + data[at + rng.integers(1, 9) :],
    "bytes put in": lambda rng, data: data[: (at := rng.integers(len(data)))] + rng.bytes(5) + data[at:],
}
FUZZED = 3_000 if FULL else 20
"""Files of each kind and change."""


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("kind", [*WHOLE, "old.pt"])
def test_a_changed_file_gives_arrays_or_one_line_soon_and_in_little_memory(kind, change, tmp_path):
    path, rng = tmp_path / f"file.{kind}", np.random.default_rng(0)
    WHOLE.get(kind, old)(path)
    whole, said, start = path.read_bytes(), set(), time.process_time()
    tracemalloc.start()
    try:
        for _ in range(FUZZED):
            path.write_bytes(CHANGES[change](rng, whole))
            try:
                for stored in _opened(path).values():
                    assert np.asarray(stored.read(...)).shape == stored.shape
            except ValueError as error:
                said.add(str(error))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert said  # most of the changes are errors, and some are not
    assert all("file." in line and line.isprintable() for line in said)
    assert peak < 64 * 2**20
    assert time.process_time() - start < 0.05 * FUZZED + 5


def _opened(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the module zipfile, for names that are there twice
        return open_file(path)


INDEXES = [
    ("a file of another folder", {"x": "../y.safetensors"}, "must name .safetensors files in the same folder"),
    ("a file of the root", {"x": "/y.safetensors"}, "must name .safetensors files in the same folder"),
    ("a file that is not there", {"x": "y.safetensors"}, "y.safetensors: no such file"),
    ("a file of another format", {"x": "y.pt"}, "must name .safetensors files"),
    ("no files", {}, "a weight_map of names to files"),
    ("a list", ["y.safetensors"], "a weight_map of names to files"),
]


@pytest.mark.parametrize(("index", "message"), [case[1:] for case in INDEXES], ids=[case[0] for case in INDEXES])
def test_an_index_stays_in_its_folder(index, message, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    with pytest.raises(ValueError, match=message):
        folders.open_arrays(tmp_path)
