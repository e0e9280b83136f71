"""MAGE's published weights: encoder, decoder, loss, gradients and features are the original's; files to the bit."""

import json
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.configs import MAGEConfig
from eqxgen.losses.mage import mage_loss, masks_of
from eqxgen.models import MAGE
from eqxgen.pretrained import from_pretrained, mage, to_pretrained
from eqxgen.pretrained.formats import open_file, safetensors
from eqxgen.pretrained.formats.stored import held
from tests import oracles
from tests.full import rows
from tests.oracles._drawn import published
from tests.oracles.mage import CODES, HEADS, RATIOS, SIZES, TOKENS

CASES = oracles.load("mage")
LEFT = {"cls_token": (1, 1, 4), "patch_embed.proj.weight": (4, 3, 2, 2), "vqgan.encoder.conv_in.bias": (3,)}


def file_of(case, path, **changes):
    arrays = published(CASES[case]["shapes"]) | {name: np.zeros(shape, "f") for name, shape in LEFT.items()} | changes
    safetensors.write(path, {name: held(array) for name, array in arrays.items() if array is not None}, {})
    return path


def heads_of(case):
    return {"num_heads": SIZES[case]["num_heads"], "decoder_num_heads": HEADS[case]}


def assert_close(found, wanted):
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


@pytest.mark.parametrize("case", rows(SIZES, "wide decoder"))
def test_encoder_decoder_loss_and_features_equal_the_original_with_its_masks(case, tmp_path):
    kept = CASES[case]
    model = mage.from_pretrained(file_of(case, tmp_path / "mage.safetensors"), config=heads_of(case))
    model = eqx.nn.inference_mode(model)
    least, share = RATIOS[case]
    count, dropped = math.ceil(TOKENS * share), math.ceil(TOKENS * least)
    label = jnp.asarray(model.null_label)

    def one(model, ids, noise):
        masks = masks_of(noise, count, dropped)
        hidden = jnp.where(masks.masked, model.mask_id, ids)
        states = model.encoded(hidden, label, kept=masks.kept)
        logits = model.decoded(states, masks.masked, kept=masks.kept)
        return masks.masked, states, logits, model(hidden), model.features(ids)

    @eqx.filter_jit
    def everything(model, ids, noise):
        def loss(model):
            masks = jax.vmap(lambda noise: masks_of(noise, count, dropped))(noise)
            return jnp.mean(
                jax.vmap(lambda ids, masks: mage_loss(model, ids, label, masks, label_dropout=0.0))(ids, masks).loss
            )

        return jax.vmap(lambda ids, noise: one(model, ids, noise))(ids, noise), eqx.filter_value_and_grad(loss)(model)

    found, (loss, slopes) = everything(model, jnp.asarray(kept["ids"]), jnp.asarray(kept["noise"]))
    masked, states, logits, generating, features = found
    np.testing.assert_array_equal(masked, kept["masked"])
    for ours, name in (
        (states[:, ::19], "states"),
        (logits[:, ::19], "logits"),
        (generating[:, ::19], "drawn"),
        (features, "features"),
        (loss, "loss"),
        (slopes.encoder.norm.scale, "slope of norm.weight"),
    ):
        assert_close(ours, kept[name])
    table = kept["slope of token_emb.word_embeddings.weight"]
    assert_close(slopes.encoder.embedding.weight[: CODES + 2], table[[*range(CODES), -1, CODES + 76]])


def test_a_file_is_read_and_written_to_the_bit(tmp_path):
    case = "wide decoder"
    path = file_of(case, tmp_path / "mage.safetensors")
    opened = mage.MAGE.open(path, config=heads_of(case))
    assert set(opened.coverage.ignored) == set(LEFT)
    model = opened.load()
    assert (model.tokens, model.codes, model.classes, model.config.spare) == (TOKENS, CODES, 0, 999)
    to_pretrained(model, tmp_path / "back", "mage")
    again, whole = open_file(tmp_path / "back" / "model.safetensors"), open_file(path)
    assert again.keys() == whole.keys() - set(LEFT)
    assert all(np.array_equal(array.read(...), whole[name].read(...)) for name, array in again.items())
    assert eqx.tree_equal(from_pretrained(tmp_path / "back"), model)


@pytest.mark.parametrize(
    ("changes", "given", "message"),
    [
        ({}, {}, r"decoder_num_heads and num_heads must be given for a width of 16, as in config="),
        ({}, {"num_labels": 2000}, r"num_labels must leave codes of 1,012 rows: got 2,000"),
        ({}, {"num_labels": 50, "num_heads": 2, "decoder_num_heads": 4}, r"num_labels must be above 76.*got 50"),
        ({"decoder_embed.weight": None}, {}, r"is not of a MAGE: there is no array 'decoder_embed.weight'"),
        ({"fc_norm.weight": np.ones(3, "f")}, {"num_heads": 2, "decoder_num_heads": 4}, "fc_norm.weight is not of a MAGE"),
    ],
)  # fmt: skip
def test_a_file_that_is_not_the_published_net_is_one_clear_error(changes, given, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        mage.MAGE.open(file_of("wide decoder", tmp_path / "x.safetensors", **changes), config=given)


def test_a_model_with_classes_or_a_projection_is_not_written(tmp_path):
    sizes = {
        "dim": 8,
        "depth": 1,
        "heads": 2,
        "hidden_dim": 8,
        "decoder_dim": 8,
        "decoder_depth": 1,
        "decoder_heads": 2,
    }
    for classes, more in ((3, {"spare": 999}), (0, {"spare": 3}), (0, {"spare": 999, "projection": 4})):
        model = eqx.filter_eval_shape(
            lambda key, c=classes, m=more: MAGE(4, 5, c, MAGEConfig(**sizes, **m), key=key), jr.key(0)
        )
        with pytest.raises(ValueError, match="must be of MAGE's architecture to be written as one"):
            to_pretrained(model, tmp_path, "mage")
    assert not list(tmp_path.iterdir())


def test_published_sizes_have_their_numbers_of_parameters():
    for config in (MAGEConfig.base(), MAGEConfig.large()):
        shapes = eqx.filter_eval_shape(lambda key, c=config: MAGE(256, 1024, 0, c, key=key), jr.key(0))
        count = sum(leaf.size for leaf in jax.tree.leaves(shapes) if isinstance(leaf, jax.ShapeDtypeStruct))
        assert count == _counted(config)


def _counted(config):
    block = lambda dim, hidden: 4 * dim**2 + 2 * dim * hidden + 9 * dim + hidden
    dim, other, rows = config.dim, config.decoder_dim, 1026
    table = rows * dim + 257 * dim + 2 * dim + rows
    encoder = config.depth * block(dim, config.hidden_dim) + 2 * dim
    decoder = config.decoder_depth * block(other, config.decoder_hidden_dim) + 2 * other + 257 * other
    return table + encoder + decoder + (dim + 1) * other + (other + 1) * dim + 2 * dim


def test_the_kept_answers_name_the_arrays_of_the_original():
    names = json.loads(str(CASES["wide decoder"]["shapes"]))
    assert {"token_emb.word_embeddings.weight", "mlm_layer.bias", "decoder_pos_embed_learned"} <= set(names)
