"""State dictionaries in torch's pickles, read by an interpreter that makes no object by name.

An opcode of the pickle machine acts on numbers, texts, tuples, lists and dictionaries alone. A global is a pair of
names, and calling one gives an array's place in the file for the few functions that rebuild tensors; every other global
is refused with its name. Where the caller says which dictionary to read, the records that trainers keep beside it
(`RECORDS`) are passed over instead: a `Left` with the name of the class takes the place of the object.
"""

import fnmatch
import io
import pickletools
from typing import Any, NamedTuple

import ml_dtypes

from eqxgen.pretrained.formats.stored import damaged, refused

STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",
}
DTYPES = {name: name for name in ("float64", "float32", "float16", "bool", "uint8", "uint16", "uint32", "uint64")}
DTYPES |= {name: name for name in ("int8", "int16", "int32", "int64")}
DTYPES |= {name: getattr(ml_dtypes, name) for name in ("bfloat16", "float8_e4m3fn", "float8_e5m2")}
MAPPING, SIZE = ("collections", "OrderedDict"), ("torch", "Size")
TENSOR, TENSOR_V2, TENSOR_V3, PARAMETER = (
    ("torch._utils", f"_rebuild_{name}") for name in ("tensor", "tensor_v2", "tensor_v3", "parameter")
)
KNOWN = {MAPPING, SIZE, TENSOR, TENSOR_V2, TENSOR_V3, PARAMETER}
KNOWN |= {("torch", name) for name in (*STORAGES, *DTYPES)} | {("torch.storage", "UntypedStorage")}

RECORDS = (
    *("pytorch_lightning.*", "lightning.*", "lightning_fabric.*", "omegaconf.*", "argparse.Namespace", "pathlib.*Path"),
    *("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype", "torch.device", "typing.Any"),
    *("collections.defaultdict", "_codecs.encode", "builtins.dict", "builtins.list", "builtins.int"),
    *("__builtin__.dict", "__builtin__.list", "__builtin__.int"),
)
"""Names of what trainers keep in a checkpoint beside the weights: states of callbacks, options, numbers."""

_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple, "EMPTY_SET": list}
_VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "INT", "LONG", "BINFLOAT", "FLOAT", "UNICODE"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
    *("SHORT_BINSTRING", "BINSTRING", "STRING"),
}
_HINT = "nothing else of a pickle is read: save the tensors alone, as safetensors"
_CHOOSE = "name the dictionary to read, such as key state_dict or model, and such a record of training is left out"


class Storage(NamedTuple):
    """Bytes in the archive.

    Attributes:
        kind: type of an entry.
        key: name of the file of bytes.
        count: of entries, or of bytes.
        in_bytes: true if of bytes.
    """

    kind: Any
    key: str
    count: int  # pyright: ignore[reportIncompatibleMethodOverride]
    in_bytes: bool = False


class Tensor(NamedTuple):
    """A strided part of a storage, in entries."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Left(NamedTuple):
    """An object of a class that is not read, in place of the object.

    Attributes:
        name: of the class.
    """

    name: str


class _Global(NamedTuple):
    module: str
    name: str


_MARK = object()


def loads(
    data: bytes, where: object, start: int = 0, storages: dict[str, Storage] | None = None, *, beside: bool = False
) -> tuple[Any, int]:
    """The value of a pickle: numbers, texts, tuples, lists and dictionaries, with a `Tensor` for each tensor; and the
    place after it.

    Args:
        data: the pickle.
        where: the file, for messages.
        start: of the pickle.
        storages: is given the storages of the pickle by key.
        beside: gives a `Left` for each object of `RECORDS`, which is an error by default.

    Raises:
        ValueError: the pickle is damaged, or holds anything else, which is named.
    """
    machine = _Machine({} if storages is None else storages, beside)
    file = io.BytesIO(data)
    file.seek(start)
    try:
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name == "STOP":
                return machine.pop(), file.tell()
            machine.do(opcode.name, argument)
    except _Refused as error:
        raise refused(where, "a pickle of tensors", error, error.hint) from None
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise damaged(where, "a pickle of tensors", f"{type(error).__name__}: {error}"[:200]) from None
    raise damaged(where, "a pickle that ends", "none")


class _Refused(Exception):
    """A part of a pickle that is not read."""

    def __init__(self, what: str, hint: str = _HINT):
        super().__init__(what)
        self.hint = hint


class _Machine:
    """The stack and the memo of a pickle."""

    def __init__(self, storages: dict[str, Storage], beside: bool = False):
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages, self.beside = storages, beside

    def pop(self) -> Any:
        if (value := self.stack.pop()) is _MARK:
            raise ValueError("a mark where a value must be")
        return value

    def marked(self) -> list[Any]:
        """The values after the last mark, which are taken from the stack with it."""
        place = len(self.stack) - 1
        while self.stack[place] is not _MARK:
            place -= 1
            if place < 0:
                raise ValueError("no mark")
        values = self.stack[place + 1 :]
        del self.stack[place:]
        return values

    def do(self, name: str, argument: Any) -> None:
        """One opcode."""
        push = self.stack.append
        if name in _VALUES:
            push(argument)
        elif name in _CONSTANTS:
            push(_CONSTANTS[name])
        elif name in _EMPTY:
            push(_EMPTY[name]())
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[argument] = self.stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            push(self.memo[argument])
        elif name == "MARK":
            push(_MARK)
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            module, kind = argument.split(" ") if name == "GLOBAL" else [self.pop(), self.pop()][::-1]
            push(_known(module, kind, self.beside))
        elif (made := _BUILDERS.get(name)) is not None:
            made(self)
        elif name not in ("PROTO", "FRAME"):
            raise _Refused(f"the opcode {name}")


def _known(module: str, name: str, beside: bool) -> _Global | Left:
    if (module, name) in KNOWN:
        return _Global(module, name)
    whole = f"{module}.{name}"
    record = any(fnmatch.fnmatchcase(whole, pattern) for pattern in RECORDS)
    if not (record and beside):
        raise _Refused(whole[:200], _CHOOSE if record else _HINT)
    return Left(whole[:200])


def _tuple(count: int | None) -> Any:
    def make(machine: _Machine) -> None:
        values = machine.marked() if count is None else [machine.pop() for _ in range(count)][::-1]
        machine.stack.append(tuple(values))

    return make


def _append(many: bool) -> Any:
    def make(machine: _Machine) -> None:
        values = machine.marked() if many else [machine.pop()]
        if not isinstance(machine.stack[-1], Left):
            machine.stack[-1].extend(values)

    return make


def _set_items(many: bool) -> Any:
    def make(machine: _Machine) -> None:
        values = machine.marked() if many else [machine.pop(), machine.pop()][::-1]
        if isinstance(into := machine.stack[-1], Left):
            return
        for key, value in zip(values[::2], values[1::2], strict=True):
            # Of other kinds a key may take very long to be hashed.
            if not isinstance(key, str | Left) and not (type(key) is int and abs(key) < 2**63):
                raise _Refused(f"a {type(key).__name__} as the key of a dictionary")
            if not isinstance(into, dict):
                raise ValueError("an item of no dictionary")
            into[key] = value

    return make


def _build(machine: _Machine) -> None:
    """Attributes of a dictionary, such as `_metadata`, which hold versions of layers."""
    machine.pop()
    if not isinstance(machine.stack[-1], dict | Left):
        raise _Refused("attributes of an object")


def _persistent(machine: _Machine) -> None:
    """A storage: ("storage", its type, its key, a device, the number of entries), and in old files a view."""
    word, kind, key, _, count, *view = machine.pop()
    if word != "storage" or not isinstance(kind, _Global) or kind.name not in STORAGES:
        raise ValueError("a storage of an unknown kind")
    if view not in ([], [None]):
        raise _Refused("a view of a storage")
    storage = Storage(STORAGES[kind.name], _text(key), _count(count))
    machine.storages[storage.key] = storage
    machine.stack.append(storage)


def _reduce(machine: _Machine) -> None:
    arguments, function = machine.pop(), machine.pop()
    if isinstance(function, Left):
        machine.stack.append(function)
        return
    if not isinstance(function, _Global) or not isinstance(arguments, tuple):
        raise _Refused("a call of what is no function")
    if function == MAPPING:
        machine.stack.append(dict(_pair(*pair) for pair in (arguments[0] if arguments else ())))
    elif function == SIZE:
        machine.stack.append(_counts(arguments[0]))
    elif function == PARAMETER:
        machine.stack.append(arguments[0])
    elif function in (TENSOR, TENSOR_V2, TENSOR_V3):
        machine.stack.append(_tensor(function, *arguments))
    else:
        raise _Refused(f"a call of {function.module}.{function.name}")


def _new(options: bool) -> Any:
    """An object of a class, of which none but those of `RECORDS` are passed over."""

    def make(machine: _Machine) -> None:
        *_, kind = [machine.pop() for _ in range(3 if options else 2)]
        if not isinstance(kind, Left):
            raise _Refused(f"the opcode NEWOBJ{'_EX' if options else ''}")
        machine.stack.append(kind)

    return make


def _tensor(function: _Global, storage: Any, offset: Any, shape: Any, strides: Any, *more: Any) -> Tensor:
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without a storage")
    if function == TENSOR_V3:
        if not isinstance(more[2], _Global) or more[2].name not in DTYPES:
            raise ValueError("a tensor of an unknown type")
        storage = storage._replace(kind=DTYPES[more[2].name], in_bytes=True)
    return Tensor(storage, _count(offset), _counts(shape), _counts(strides))


def _pair(key: Any, value: Any) -> tuple[str, Any]:
    return _text(key), value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("no text where a text must be")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError("no count where a count must be")
    return value


def _counts(values: Any) -> tuple[int, ...]:
    if not isinstance(values, tuple | list):
        raise ValueError("no sizes where sizes must be")
    return tuple(map(_count, values))


_BUILDERS = {
    "TUPLE": _tuple(None),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "APPEND": _append(False),
    "APPENDS": _append(True),
    "ADDITEMS": _append(True),
    "SETITEM": _set_items(False),
    "SETITEMS": _set_items(True),
    "BUILD": _build,
    "BINPERSID": _persistent,
    "REDUCE": _reduce,
    "NEWOBJ": _new(False),
    "NEWOBJ_EX": _new(True),
    "POP": _Machine.pop,
}
