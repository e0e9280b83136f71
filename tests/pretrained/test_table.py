"""One table reads and writes: every parameter is filled, every array is used or ignored with its reason, to the bit."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import ml_dtypes
import numpy as np
import pytest
from jaxtyping import Array

from eqxgen.nn.attention.self_attention import split_heads
from eqxgen.pretrained import from_pretrained, gpt2, open_pretrained, to_pretrained, transforms
from eqxgen.pretrained import table as tables
from eqxgen.pretrained.families import recognised
from eqxgen.pretrained.formats import open_file, safetensors
from eqxgen.pretrained.formats.copies import copied, fresh
from eqxgen.pretrained.formats.stored import Stored, held
from eqxgen.pretrained.table import Row, Table, Tied, match, written
from eqxgen.pretrained.transforms import CONV, CROPPED, SAME, TRANSPOSED, constant, layout, qkv, then
from tests import oracles
from tests.devices import printed
from tests.oracles import bert, llama, t5
from tests.oracles.gpt2 import SIZES
from tests.oracles.vision import MODELS
from tests.pretrained.test_vision import FAMILIES

TRANSFORMS = {
    "same": (SAME, (3, 5), [(3, 5)]),
    "transposed": (TRANSPOSED, (3, 5), [(5, 3)]),
    "conv": (CONV, (3, 2, 5, 7), [(7, 5, 3, 2)]),
    "conv over one axis": (transforms.CONV_1D, (3, 5, 7), [(7, 5, 3)]),
    "pointwise": (transforms.POINTWISE, (3, 5), [(3, 5, 1, 1)]),
    "patches": (layout("o i h w -> o (h w i)", h=2, w=3), (5, 24), [(5, 4, 2, 3)]),
    "three of heads": (qkv(4), (24, 5), [(8, 5)] * 3),
    "three of shared heads": (qkv(6, 2), (30, 5), [(18, 5), (6, 5), (6, 5)]),
    "three biases": (qkv(4), (24,), [(8,)] * 3),
    "all heads in one": (qkv(4, parts=1), (24, 5), [(24, 5)]),
    "shared heads in one": (qkv(6, 2, parts=1), (30,), [(30,)]),
    "transposed heads": (then(TRANSPOSED, qkv(4, parts=1)), (24, 5), [(5, 24)]),
    "a constant": (constant(0.0), (3,), []),
}


@pytest.mark.parametrize("case", TRANSFORMS)
def test_a_transform_is_undone_to_the_bit(case):
    how, shape, published = TRANSFORMS[case]
    x = np.random.default_rng(0).standard_normal(shape).astype(ml_dtypes.bfloat16) * (case != "a constant")
    pieces = how.write(x)
    assert [piece.shape for piece in pieces] == published
    assert [piece.shape for piece in jax.eval_shape(how.write, jax.ShapeDtypeStruct(shape, "float32"))] == published
    found = np.asarray(how.read(pieces))
    np.testing.assert_array_equal(found.reshape(shape) if found.size == x.size else np.broadcast_to(found, shape), x)


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 2), (3, 1)])
@pytest.mark.parametrize("parts", [1, 3])
def test_joined_projections_give_the_queries_keys_and_values_of_the_published_ones(heads, kv_heads, parts):
    rng, dim, head_dim = np.random.default_rng(0), 7, 4
    q, k, v = (rng.standard_normal((count * head_dim, dim)) for count in (heads, kv_heads, kv_heads))
    x = rng.standard_normal((5, dim))
    weight = qkv(heads, kv_heads, parts=parts).read((q, k, v) if parts == 3 else (np.concatenate([q, k, v]),))
    found = split_heads(jnp.asarray(x @ weight.reshape(-1, dim).T), kv_heads, head_dim)
    for ours, theirs in zip(found, (q, k, v)):
        np.testing.assert_allclose(ours, (x @ theirs.T).reshape(5, -1, head_dim), rtol=1e-5, atol=1e-6)


def test_a_constant_that_a_model_has_changed_is_not_written():
    with pytest.raises(ValueError, match=r"must be 0\.0 everywhere, for which the published model has no parameter"):
        constant(0.0).write(np.ones(3))


@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (300, 1), (131, 257), (2, 131, 3, 140)])
def test_copies_of_any_layout_are_equal_and_aligned(shape):
    x = np.random.default_rng(0).standard_normal(shape)
    for array in (x, x.T, np.moveaxis(x, 0, -1) if x.ndim else x):
        copy = copied(fresh(array.shape, array.dtype), array)
        np.testing.assert_array_equal(copy, array)
        assert copy.flags.c_contiguous
        assert copy.ctypes.data % 64 == 0 or not copy.size


class Block(eqx.Module):
    weight: Array
    bias: Array | None


class Net(eqx.Module):
    table: Array
    stack: Block
    stages: list[list[Block]]
    scale: Array
    name: str = eqx.field(static=True)


def block(key, *leading, bias=True):
    return Block(jr.normal(key, (*leading, 5, 3)), jr.normal(key, (*leading, 5)) if bias else None)


def net(key, bias=True):
    keys = jr.split(key, 5)
    stages = [[block(keys[0], bias=bias)], [block(keys[1], bias=bias), block(keys[2], bias=bias)]]
    return Net(jr.normal(keys[3], (7, 3)), block(keys[4], 2, bias=bias), stages, jnp.ones(4), "net")


TABLE = Table(
    "Toy",
    (
        Row("table", "toy.embed.weight", CROPPED),
        Row("stack.{}.weight", "toy.layer.{}.weight", TRANSPOSED),
        Row("stack.{}.bias", "toy.layer.{}.bias"),
        Row("stages.{}.{}.weight", "toy.stage{}.block{}.weight"),
        Row("stages.{}.{}.bias", "toy.stage{}.block{}.bias"),
        Row("scale", "scale"),
        Row("scale", (), constant(1.0)),
    ),
    tied=(Tied("head.weight", "toy.embed.weight"), Tied("copy.{}.weight", "toy.embed.weight")),
    ignored={"*.steps": "counts of training"},
    prefixes=("toy.",),
    renames={".gamma": ".weight"},
)
MODEL = net(jr.key(0))
PUBLISHED = {name: np.asarray(stored.read(...)) for name, stored in written(TABLE, MODEL).items()}


def stored(arrays):
    return {name: held(np.asarray(array)) for name, array in arrays.items()}


def read(arrays, model=MODEL, **options):
    return tables.read(TABLE, stored(arrays), model, "F", **options)


def equal(one, other):
    leaves = [jax.tree.leaves(eqx.filter(tree, eqx.is_array)) for tree in (one, other)]
    return len(leaves[0]) == len(leaves[1]) and all(
        a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(*leaves)
    )


def test_a_model_is_written_under_published_names_and_read_back():
    assert set(PUBLISHED) == {
        "toy.embed.weight",
        *(f"toy.layer.{i}.{name}" for i in range(2) for name in ("weight", "bias")),
        *(f"toy.stage{i}.block{j}.{name}" for i, j in ((0, 0), (1, 0), (1, 1)) for name in ("weight", "bias")),
        "scale",
    }
    np.testing.assert_array_equal(PUBLISHED["toy.layer.1.weight"], MODEL.stack.weight[1].T)
    model, coverage = read(PUBLISHED)
    assert equal(model, MODEL)
    assert model.name == "net"
    assert coverage.line == f"{len(PUBLISHED)} arrays read"


CHANGES = {
    "without prefixes": lambda a: {name.removeprefix("toy."): array for name, array in a.items()},
    "of parallel training": lambda a: {f"module.{name}": array for name, array in a.items()},
    "compiled": lambda a: {f"_orig_mod.module.{name}": array for name, array in a.items()},
    "in an old spelling": lambda a: {name.replace("embed.weight", "embed.gamma"): x for name, x in a.items()},
    "with a tied copy": lambda a: a | {"head.weight": a["toy.embed.weight"], "copy.3.weight": a["toy.embed.weight"]},
    "with the copy alone": lambda a: {n.replace("toy.embed", "head"): x for n, x in a.items()},
    "without what is constant": lambda a: {name: array for name, array in a.items() if name != "scale"},
    "with a count": lambda a: a | {"toy.stage0.steps": np.zeros((), int)},
    "with a padded vocabulary": lambda a: a | {"toy.embed.weight": np.pad(a["toy.embed.weight"], ((0, 4), (0, 0)))},
}


@pytest.mark.parametrize("change", CHANGES)
def test_files_of_other_spellings_give_the_same_model(change):
    arrays = CHANGES[change](PUBLISHED)
    model, coverage = read(arrays)
    assert equal(model, MODEL)
    assert len(coverage.read) + len(coverage.ignored) == len(arrays)
    said = {
        "with a tied copy": "2 (head.weight, copy.3.weight) ignored: the same as embed.weight",
        "with a count": "1 (stage0.steps) ignored: counts of training",
        "with a padded vocabulary": "4 more rows of embed.weight than the model has left out",
    }
    assert said.get(change, "arrays read") in coverage.line


def test_types_stay_as_they_are_stored_or_become_the_one_that_is_asked_for():
    half = {name: array.astype(ml_dtypes.bfloat16) for name, array in PUBLISHED.items()}
    model, _ = read(half)
    assert {leaf.dtype for leaf in jax.tree.leaves(model)} == {jnp.dtype("bfloat16")}
    back = written(TABLE, model)
    assert all(back[name].dtype == "bfloat16" and np.array_equal(back[name].read(...), half[name]) for name in half)
    wide, _ = read(half, dtype=jnp.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(wide)} == {jnp.dtype("float32")}
    assert np.array_equal(wide.table, half["toy.embed.weight"].astype(np.float32))


def test_parameters_that_a_model_is_without_are_passed_over():
    plain = net(jr.key(0), bias=False)
    arrays = {name: stored.read(...) for name, stored in written(TABLE, plain).items()}
    assert not any(name.endswith("bias") for name in arrays)
    assert equal(read(arrays, plain)[0], plain)


without = lambda *names: lambda a: {name: array for name, array in a.items() if name not in names}
BAD = [
    ("an array that is missing", without("toy.embed.weight"), "F: array embed.weight is missing: is it a Toy of the sizes"),
    ("several", lambda a: {"scale": a["scale"]}, r"array embed.weight is missing, and 10 more \(layer.0.weight, layer.1.weight, ...\)"),
    ("an array too many", lambda a: a | {"x": a["scale"]}, "array x is not of a Toy of this config"),
    ("another architecture", lambda a: {"h.0.attn.c_attn.weight": a["scale"]}, 'F: 11 arrays of a Toy are missing .*look like those of gpt2: give family="gpt2"'),
    ("several too many", lambda a: a | dict.fromkeys("xyz", a["scale"]), r"array x is not of a Toy of this config, and 2 more \(y, z\)"),
    ("another depth", lambda a: a | {"layer.2.bias": a["toy.layer.1.bias"]}, "array layer.2.bias is not of a Toy"),
    ("another shape", lambda a: a | {"toy.layer.1.bias": np.zeros(6, "f")}, r"array layer.1.bias must be floating-point\[5\], as the config says: got float32\[6\]"),
    ("a matrix that is transposed", lambda a: a | {"toy.layer.1.weight": a["toy.layer.1.weight"].T}, r"\[3, 5\].*got float32\[5, 3\]"),
    ("fewer rows than the vocabulary", lambda a: a | {"toy.embed.weight": a["toy.embed.weight"][:6]}, r"\[7, 3\].*got float32\[6, 3\]"),
    ("integers", lambda a: a | {"scale": np.zeros(4, int)}, r"array scale must be floating-point\[4\].*got int64\[4\]"),
    ("a copy that differs", lambda a: a | {"head.weight": a["toy.embed.weight"] + 1}, "head.weight must equal embed.weight"),
    ("a copy of another type", lambda a: a | {"head.weight": a["toy.embed.weight"].astype("f8")}, "head.weight must equal"),
    ("one array under two names", lambda a: a | {"embed.weight": a["toy.embed.weight"]}, "must be there once"),
    ("a name that draws", lambda a: a | {"x\x1b[2J": a["scale"]}, r"array x\\x1b\[2J is not"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "message"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_arrays_that_are_not_the_models_are_an_error(change, message):
    with pytest.raises(ValueError, match=message):
        read(change(PUBLISHED))


def test_a_parameter_that_no_row_names_is_an_error():
    rows = tuple(row for row in TABLE.rows if row.path != "scale")
    with pytest.raises(ValueError, match="of Toy's architecture, in which there is no parameter scale: got another"):
        written(Table("Toy", rows), MODEL)
    with pytest.raises(ValueError, match="no parameter scale"):
        match(Table("Toy", rows), stored(PUBLISHED), MODEL)


def test_a_copy_that_the_library_needs_is_written():
    table = Table("Toy", TABLE.rows, tied=(Tied("head.weight", "toy.embed.weight", written=True),))
    found = written(table, MODEL)
    np.testing.assert_array_equal(found["head.weight"].read(...), MODEL.table)


def test_nothing_is_read_before_it_is_asked_for_and_a_part_reads_its_layers_alone():
    asked = []

    def watched(name, array):
        def part(index):
            asked.append(name)
            return array[index]

        return Stored(array.shape, array.dtype, part)

    leaves = match(TABLE, {name: watched(name, array) for name, array in PUBLISHED.items()}, MODEL).leaves
    assert asked == []
    whole = leaves["stack.weight"].read(...)
    np.testing.assert_array_equal(whole, MODEL.stack.weight)
    asked.clear()
    part = leaves["stack.weight"].read((slice(1, 2), slice(0, 5, 2), slice(None)))
    np.testing.assert_array_equal(part, whole[1:2, 0:5:2])
    assert asked == ["toy.layer.1.weight"]


def test_each_device_is_given_its_part_alone():
    found = printed("tests.pretrained.load_devices", timeout=100)
    assert found["same"]
    assert found["largest part"] * 8 == found["largest"]
    assert found["devices"] == 8
    assert found["loaded as it was"]
    assert found["loaded part"] * 8 == found["loaded"]
    assert found["equal"]
    assert found["arrays of a conversion"] == 0


def test_the_front_door_knows_a_family_by_its_config_or_says_what_the_arrays_look_like(tmp_path):
    path, config = tmp_path / "model.safetensors", {"model_type": "gpt2", **SIZES}
    arrays = stored(oracles.load("gpt2")["weights"])
    safetensors.write(path, arrays, {})
    (tmp_path / "config.json").write_text(json.dumps(config))
    opened, model = open_pretrained(tmp_path), from_pretrained(tmp_path)
    assert opened.coverage.line == "28 arrays read"
    assert opened.leaves.keys() == set(tables.paths(model))
    assert equal(from_pretrained(path, family="gpt2"), model)
    to_pretrained(model, tmp_path / "back", "gpt2")
    assert same_bits(open_file(tmp_path / "back" / path.name), arrays)
    (tmp_path / "config.json").unlink()
    assert equal(gpt2.from_pretrained(path, config=config), model)
    with pytest.raises(ValueError, match=r"config\.json: no such file.*look like those of gpt2: fetch config"):
        from_pretrained(path)
    with pytest.raises(ValueError, match=r"family must be one of .*gpt2.*: got 'gtp2'"):
        from_pretrained(path, family="gtp2")
    (tmp_path / "config.json").write_text('{"_class_name": "Unknown2D"}')
    with pytest.raises(ValueError, match=r"config\.json: must be of one of .*: got model_type 'Unknown2D'"):
        from_pretrained(tmp_path)


VARIANTS = {"bert": bert.VARIANTS, "llama": llama.VARIANTS, "t5": t5.VARIANTS}
RECOGNISED = [
    *((family, family, f"{variant}/files") for family in ("bert", "llama", "t5") for variant in VARIANTS[family]),
    *(("vision", FAMILIES[case.split(",")[0]], case) for case in MODELS),
    *(("unet", "unet", case) for case in ("DDPM", "no attention")),
    ("autoencoders", "autoencoder_kl", "AutoencoderKL"),
    ("autoencoders", "autoencoder_vq", "VQModel"),
    ("dit", "dit", "defaults"),
]


@pytest.mark.parametrize(("subject", "family", "case"), RECOGNISED, ids=[f"{f}: {c}" for _, f, c in RECOGNISED])
def test_a_family_is_recognised_by_the_names_of_its_arrays(subject, family, case):
    assert recognised(json.loads(str(oracles.load(subject)[case]["shapes"]))) == family


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("clip", "visual.transformer.resblocks.0.attn.in_proj_weight"),
        ("dinov2", "blocks.0.ls1.gamma"),
        ("dit", "blocks.0.adaLN_modulation.1.weight"),
        ("vit", "blocks.0.attn.qkv.weight"),
        ("resnet", "layer1.0.bn1.running_mean"),
        ("autoencoder_kl", "first_stage_model.encoder.down.0.block.0.conv1.weight"),
        ("uvit", "in_blocks.0.attn.qkv.weight"),
    ],
)
def test_a_family_is_recognised_by_an_original_name(family, name):
    assert recognised(["x", name]) == family


def same_bits(found, expected):
    return found.keys() == expected.keys() and all(
        np.array_equal(found[n].read(...), expected[n].read(...)) for n in found
    )
