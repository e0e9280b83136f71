"""MaskGIT's published tokenizer and transformer: their outputs, their sizes by the arrays, their files to the bit."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.configs import MaskGITConfig, VQGANConfig
from eqxgen.decoding.masked import guided
from eqxgen.losses.masked import masked_loss
from eqxgen.models import VQGAN, MaskGIT
from eqxgen.pretrained import from_pretrained, maskgit, open_pretrained, to_pretrained, vqgan
from eqxgen.pretrained.formats import flax_msgpack, open_file
from eqxgen.pretrained.formats.stored import held
from tests import oracles
from tests.oracles._drawn import published
from tests.oracles.maskgit import CLASSES, CODES, TOKENIZERS, TOKENS

CASES = oracles.load("maskgit")
GIVEN = {"image_size": [16, 24]}


def file_of(case, path, **changes):
    arrays = published(CASES[case]["shapes"]) | changes
    flax_msgpack.write(path, {name: held(array) for name, array in arrays.items() if array is not None})
    return path


def assert_close(found, wanted):
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("case", TOKENIZERS)
def test_ids_and_images_equal_those_of_the_published_tokenizer(case, tmp_path):
    path, kept = file_of(case, tmp_path / "tokenizer.msgpack"), CASES[case]
    opened = vqgan.VQGAN.open(path, config=GIVEN)
    assert opened.coverage.line == f"{len(json.loads(str(kept['shapes'])))} arrays read"
    model = opened.load()

    image, quantized, _ = eqx.filter_jit(model.reconstruct)(2 * kept["image"][0] - 1)
    np.testing.assert_array_equal(quantized.ids, kept["ids"][0])
    assert_close((image + 1) / 2, kept["out"][0])
    to_pretrained(model, tmp_path / "back", "vqgan")
    again, whole = open_file(tmp_path / "back" / "flax_model.msgpack"), open_file(path)
    assert again.keys() == whole.keys()
    assert all(np.array_equal(again[name].read(...), array.read(...)) for name, array in whole.items())
    assert eqx.tree_equal(from_pretrained(tmp_path / "back"), model)


def test_logits_equal_those_of_the_published_transformer(tmp_path):
    path, kept = file_of("transformer", tmp_path / "maskgit.msgpack"), CASES["transformer"]
    model = maskgit.from_pretrained(path, config={"num_class": CLASSES})
    assert (model.tokens, model.codes, model.classes) == (TOKENS, CODES, CLASSES)
    ids = np.where(kept["masked"], model.mask_id, kept["codes"])
    logits = jax.vmap(lambda ids, label: model(ids, label, inference=True))(ids, kept["labels"])
    assert_close(logits, kept["logits"][:, 1:, :CODES])
    to_pretrained(model, tmp_path / "back", "maskgit")
    again, whole = open_file(tmp_path / "back" / "flax_model.msgpack"), open_file(path)
    assert again.keys() == whole.keys()
    assert all(np.array_equal(again[name].read(...), array.read(...)) for name, array in whole.items())
    assert eqx.tree_equal(from_pretrained(tmp_path / "back"), model)
    with pytest.raises(ValueError, match="guidance needs a model with a null label"):
        guided(model, jnp.asarray(0), 2.0)(ids[0])
    with pytest.raises(ValueError, match=r"label must be in \[0, classes=5\)"):
        model(ids[0], 5, inference=True)
    codes = jnp.asarray(kept["codes"][0])
    with pytest.raises(ValueError, match=r"label_dropout must be 0 for a model without a null label: got 0\.1"):
        masked_loss(model, codes, jnp.asarray(0), key=jr.key(0))


def test_flax_reads_what_is_written(tmp_path):
    flax = pytest.importorskip("flax.serialization", reason="flax is not installed; `nox -s parity` installs it")
    state = flax.from_bytes(None, file_of("transformer", tmp_path / "x.msgpack").read_bytes())
    np.testing.assert_array_equal(
        state["params"]["MlmLayer_0"]["mlm_bias"]["bias"],
        published(CASES["transformer"]["shapes"])["params/MlmLayer_0/mlm_bias/bias"],
    )
    (tmp_path / "theirs.msgpack").write_bytes(flax.to_bytes(state))
    theirs, ours = open_file(tmp_path / "theirs.msgpack"), open_file(tmp_path / "x.msgpack")
    assert theirs.keys() == ours.keys()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int64", "bool"])
def test_a_written_file_has_every_type_and_shape(dtype, tmp_path):
    arrays = {f"a/{n}": np.ones((2,) * n, jnp.dtype(dtype)) for n in range(4)} | {
        "b": np.zeros((3, 0), jnp.dtype(dtype))
    }
    flax_msgpack.write(tmp_path / "x.msgpack", {name: held(array) for name, array in arrays.items()})
    for name, stored in open_file(tmp_path / "x.msgpack").items():
        assert stored.dtype == arrays[name].dtype
        np.testing.assert_array_equal(stored.read(...), arrays[name])


REFUSED = [
    ("transformer", {}, {}, r"num_class must be given, as 19 rows are of codes, classes and the mask .*config="),
    ("transformer", {}, {"num_class": 18}, r"num_class must be in \[1, 18\), the rows without the mask: got 18"),
    ("transformer", {"params/TransformerLayer_1/Mlp_0/layer_output/bias": None}, {"num_class": CLASSES}, "array TransformerLayer_1/Mlp_0/layer_output/bias is missing"),
    ("transformer", {"params/Embed_0/embedding_hidden_mapping/kernel": np.ones((2, 2))}, {"num_class": CLASSES}, "embedding_hidden_mapping/kernel is not of a MaskGIT"),
    ("transformer", {"params/Embed_0/position_embeddings/embedding": None}, {"num_class": CLASSES}, "no array 'Embed_0/position_embeddings/embedding'"),
    ("tokenizer", {"params/encoder/GroupNorm_0/scale": None}, GIVEN, "norm_type must be 'GN'"),
    ("tokenizer", {"params/encoder/Conv_2/kernel": np.ones((4, 4, 2, 2))}, GIVEN, "conv_downsample must be False"),
    ("tokenizer", {"params/encoder/ResBlock_2/Conv_2/kernel": np.ones((1, 1, 32, 64), "f")}, GIVEN, r"\[1, 1, 64, 64\].*got float32\[1, 1, 32, 64\]"),
]  # fmt: skip


@pytest.mark.parametrize(("case", "changes", "given", "message"), REFUSED, ids=[row[3][:24] for row in REFUSED])
def test_a_file_that_is_not_the_published_net_is_one_clear_error(case, changes, given, message, tmp_path):
    family = maskgit.MASKGIT if case == "transformer" else vqgan.VQGAN
    with pytest.raises(ValueError, match=message):
        family.open(file_of(case, tmp_path / "x.msgpack", **changes), config=given)


def test_a_model_of_another_form_is_not_written(tmp_path):
    plain = VQGANConfig(width=8, multipliers=(1, 2), blocks=1, latent_dim=4, codes=5)
    for make, family in (
        (lambda key: VQGAN(8, 8, 3, plain, key=key), "vqgan"),
        (lambda key: MaskGIT(4, 5, 2, MaskGITConfig(8, 1, 2, 16), key=key), "maskgit"),
        (lambda key: MaskGIT(4, 5, 2, MaskGITConfig(8, 1, 2, 16, null=False, placement="pre"), key=key), "maskgit"),
    ):
        with pytest.raises(ValueError, match="architecture to be written as one"):
            to_pretrained(eqx.filter_eval_shape(make, jr.key(0)), tmp_path, family)
    assert not list(tmp_path.iterdir())


def test_published_sizes_have_their_numbers_of_parameters(tmp_path):
    nets = {
        54_515_587: lambda key: VQGAN(256, 256, 3, VQGANConfig.published(), key=key),
        172_457_193: lambda key: MaskGIT(256, 1024, 1000, MaskGITConfig.published(), key=key),
    }
    for count, make in nets.items():
        leaves = jax.tree.leaves(eqx.filter_eval_shape(make, jr.key(0)))
        assert sum(leaf.size for leaf in leaves if isinstance(leaf, jax.ShapeDtypeStruct)) == count
    with pytest.raises(ValueError, match='like those of maskgit: give family="maskgit", whose files'):
        open_pretrained(file_of("transformer", tmp_path / "x.msgpack"))
