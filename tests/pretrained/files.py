"""Files of weights in the formats of others, put together by hand: good ones, and those that no program writes."""

import json
import struct
import zipfile
from pathlib import Path

import numpy as np

VALUES = np.arange(6, dtype=np.float32).reshape(2, 3)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def number(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def many(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"


def call(module: str, name: str, *arguments: bytes) -> bytes:
    return named(module, name) + many(*arguments) + b"R"


def mapping(**items: bytes) -> bytes:
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def storage(kind: str = "FloatStorage", key: str = "0", count: int = 6) -> bytes:
    return many(text("storage"), named("torch", kind), text(key), text("cpu"), number(count)) + b"Q"


def tensor(shape=(2, 3), strides=(3, 1), offset=0, **of: object) -> bytes:
    sizes = [many(*map(number, values)) for values in (shape, strides)]
    hooks = named("collections", "OrderedDict") + b")R"
    return call("torch._utils", "_rebuild_tensor_v2", storage(**of), number(offset), *sizes, b"\x89", hooks)


def torch_file(
    path: Path, value: bytes, data: bytes = VALUES.tobytes(), compress: int = zipfile.ZIP_STORED, **entries: bytes
) -> None:
    """A pickle of the value, and a storage 0."""
    with zipfile.ZipFile(path, "w", compress) as archive:
        for name, content in {"data.pkl": b"\x80\x02" + value + b".", "data/0": data, **entries}.items():
            archive.writestr(f"archive/{name}", content)


def safetensors_file(path: Path, header: object, data: bytes = VALUES.tobytes(), length: int | None = None) -> None:
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(head) if length is None else length) + head + data)


def entry(dtype: object = "F32", shape: object = (2, 3), offsets: object = (0, 24)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def npy(shape: object, descr: str = "<f4", data: bytes = VALUES.tobytes(), fortran: bool = False) -> bytes:
    head = f"{{'descr': {descr!r}, 'fortran_order': {fortran}, 'shape': {shape}, }}".encode()
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + data


def zip_file(path: Path, compress: int = zipfile.ZIP_STORED, **entries: bytes) -> None:
    with zipfile.ZipFile(path, "w", compress) as archive:
        for name, content in entries.items():
            archive.writestr(name.replace("__", "."), content)


def packed(value: object) -> bytes:
    """msgpack of dictionaries, lists, texts, bytes, small numbers and arrays, as flax writes them."""
    if isinstance(value, dict):
        parts = [packed(part) for pair in value.items() for part in pair]
        return bytes([0x80 | len(value)]) + b"".join(parts)
    if isinstance(value, tuple | list):
        return bytes([0x90 | len(value)]) + b"".join(map(packed, value))
    if isinstance(value, str):
        return bytes([0xD9, len(value)]) + value.encode()
    if isinstance(value, bytes):
        return b"\xc6" + struct.pack(">I", len(value)) + value
    if isinstance(value, np.ndarray):
        return extension(1, packed((value.shape, value.dtype.name, value.tobytes())))
    return b"\xce" + struct.pack(">I", value)


def extension(kind: int, content: bytes) -> bytes:
    return b"\xc9" + struct.pack(">Ib", len(content), kind) + content
