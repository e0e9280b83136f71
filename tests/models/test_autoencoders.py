"""Autoencoders of latent diffusion and taming transformers are the published ones, in and out."""

import functools
import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen.configs import AutoencoderConfig
from eqxgen.models.autoencoder import KLAutoencoder, VQAutoencoder
from eqxgen.nn.distributions import DiagonalGaussian
from eqxgen.pretrained import autoencoder, autoencoder_kl, autoencoder_vq, named, table
from eqxgen.pretrained.family import Unsupported
from eqxgen.pretrained.formats import safetensors
from eqxgen.pretrained.formats.stored import held
from tests import oracles
from tests.full import rows
from tests.oracles._drawn import published

CASES, TAMING = oracles.load("autoencoders"), oracles.load("vqmodel")
FAMILIES = {"AutoencoderKL": autoencoder_kl.AUTOENCODER_KL, "VQModel": autoencoder_vq.AUTOENCODER_VQ}
SMALL = AutoencoderConfig(widths=(4, 8), blocks=1, latent_dim=2, groups=2, attention=(1,))


def near(ours, theirs):
    scale = np.abs(theirs).max()
    np.testing.assert_allclose(np.asarray(ours) / scale, theirs / scale, atol=1e-5)


def opened(case):
    config = json.loads(str(case["config"]))
    family, arrays = FAMILIES[config["_class_name"]], published(case["shapes"])
    make, names = family.build(config)
    stored = {name: held(array) for name, array in arrays.items()}
    model, coverage = table.read(names, stored, eqx.filter_eval_shape(make, jr.key(0)))
    assert len(coverage.read) == len(arrays)
    return family, model, arrays, config


@pytest.mark.parametrize("name", rows(CASES, "VQModel without attention in the middle"))
def test_a_published_autoencoder_has_its_outputs_and_is_written_to_the_bit(name):
    case = CASES[name]
    family, model, arrays, config = opened(case)
    image = jnp.asarray(case["input"])
    if isinstance(model, KLAutoencoder):
        made, posterior = jax.jit(jax.vmap(model))(image)
        near(posterior.mean, case["mean"])
        near(posterior.log_variance, case["log_variance"])
        near(jax.vmap(type(posterior).divergence)(posterior), case["divergence"])
    else:
        made, quantized = jax.jit(jax.vmap(model))(image)
        near(jax.jit(jax.vmap(model.latents))(image), case["latents"])
        np.testing.assert_array_equal(jax.jit(jax.vmap(model.encode))(image), case["ids"])
        near(jax.jit(jax.vmap(model.decode))(jnp.asarray(case["ids"])), case["image"])
        np.testing.assert_array_equal(quantized.ids, case["ids"])
    near(made, case["image"])
    described, names = family.describe(model)
    back = {name: np.asarray(array.read(...)) for name, array in table.written(names, model).items()}
    assert back.keys() == arrays.keys()
    assert all(np.array_equal(back[name], arrays[name]) for name in arrays)
    assert {key: described[key] for key in config if key in described} == config


def test_original_checkpoints_count_levels_from_the_largest_and_keep_attention_as_convolutions():
    model = drawn(lambda key: VQAutoencoder(3, 5, SMALL, key=key))
    arrays = table.written(originals(model), model)
    assert arrays["encoder.down.1.attn.0.q.weight"].shape == (8, 8, 1, 1)
    assert arrays["decoder.up.1.attn.1.proj_out.weight"].shape == (8, 8, 1, 1)
    assert arrays["decoder.up.1.upsample.conv.weight"].shape == (8, 8, 3, 3)
    assert arrays["decoder.up.0.block.0.nin_shortcut.weight"].shape == (4, 8, 1, 1)
    assert {"encoder.down.0.downsample.conv.bias", "encoder.mid.attn_1.k.bias", "quantize.embedding.weight"} <= {
        *arrays
    }
    extra = {"loss.discriminator.main.0.weight": held(np.zeros(3, np.float32))}
    shapes = eqx.filter_eval_shape(lambda key: VQAutoencoder(3, 5, SMALL, key=key), jr.key(1))
    again, coverage = table.read(autoencoder.table(2), {**arrays, **extra}, shapes)
    assert "1 (loss.discriminator.main.0.weight) ignored: nets of the training losses" in coverage.line
    assert eqx.tree_equal(again, model)


def originals(model):
    """The table that writes the names of the original repositories."""
    names = autoencoder.table(len(model.encoder.levels))
    return table.Table("autoencoder", tuple(reversed(names.rows)), ignored=names.ignored, renames=names.renames)


@pytest.mark.parametrize("name", rows(TAMING, "gray, attention everywhere"))
def test_a_checkpoint_of_tamings_own_classes_has_their_outputs(name, tmp_path):
    case = TAMING[name]
    arrays = published(case["shapes"])
    more = {"loss.discriminator.main.0.weight": np.zeros(3, np.float32)}
    safetensors.write(tmp_path / "x.safetensors", {name: held(array) for name, array in (arrays | more).items()}, {})
    opened = autoencoder_vq.AUTOENCODER_VQ.open(tmp_path / "x.safetensors")
    assert len(opened.coverage.read) == len(arrays)
    model, image = opened.load(), jnp.asarray(case["input"])
    made, quantized = jax.jit(jax.vmap(model))(image)
    np.testing.assert_array_equal(quantized.ids, case["ids"])
    near(made, case["image"])
    near(jax.jit(jax.vmap(model.latents))(image), case["latents"])
    back = {name: np.asarray(array.read(...)) for name, array in table.written(originals(model), model).items()}
    assert back.keys() == arrays.keys()
    assert all(np.array_equal(back[name], arrays[name]) for name in arrays)


@functools.cache
def drawn(make):
    """A model with drawn arrays, without the compilation of its initialiser."""
    rng, shapes = np.random.default_rng(0), eqx.filter_eval_shape(make, jr.key(0))
    draw = lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype) if isinstance(x, jax.ShapeDtypeStruct) else x
    return jax.tree.map(draw, shapes)


def original(model, path, **extra):
    """A file with the names of the original repositories."""
    arrays = dict(table.written(originals(model), model))
    extra = {name: held(np.zeros(shape, np.float32)) for name, shape in extra.items()}
    path.parent.mkdir(exist_ok=True)
    safetensors.write(path, arrays | extra, {})
    return path


GROUPS = {"norm_num_groups": 2}
NETS = {
    "autoencoder_kl": lambda key: KLAutoencoder(1, SMALL, key=key),
    "autoencoder_vq": lambda key: VQAutoencoder(3, 5, SMALL, code_dim=3, key=key),
}


@pytest.mark.parametrize("name", NETS)
def test_sizes_of_original_checkpoints_are_those_of_their_shapes(name, tmp_path):
    family, model = named(name), drawn(NETS[name])
    opened = family.open(original(model, tmp_path / "x.safetensors", **{"loss.logvar": ()}), config=GROUPS)
    assert opened.coverage.line.endswith("1 (loss.logvar) ignored: nets of the training losses")
    assert eqx.tree_equal(opened.load(), model)


def test_no_attention_and_no_projections_are_seen_in_the_names(tmp_path):
    config = AutoencoderConfig(
        widths=(2, 2, 4), blocks=2, latent_dim=3, groups=2, middle_attention=False, projected=False
    )
    model = drawn(lambda key: KLAutoencoder(3, config, key=key))
    whole = {"model.diffusion_model.x": (2,), "betas": (2,)}
    opened = autoencoder_kl.AUTOENCODER_KL.open(original(model, tmp_path / "x.safetensors", **whole), config=GROUPS)
    assert "ignored: the diffusion model of the latents" in opened.coverage.line
    assert eqx.tree_equal(opened.load(), model)


UNSEEN = [
    ("autoencoder_kl", "autoencoder_vq", {}, GROUPS, 'has a codebook, .*give family="autoencoder_vq"'),
    ("autoencoder_vq", "autoencoder_kl", {}, GROUPS, 'has no codebook, .*give family="autoencoder_kl"'),
    ("autoencoder_vq", "autoencoder_kl", {"quantize.embed.weight": (5, 3)}, GROUPS, "got Gumbel's, quantize.embed.weight"),
    ("autoencoder_kl", "autoencoder_kl", {"encoder.down_blocks.0.resnets.0.conv1.weight": (1,)}, GROUPS, "config.json must be beside a file with diffusers' names"),
    ("autoencoder_kl", "autoencoder_kl", {"encoder.mid.attn_1.to_qkv.weight": (1,)}, GROUPS, "attn_1.to_qkv.weight is not of a autoencoder"),
    ("autoencoder_kl", "autoencoder_kl", {}, {}, r"widths must be one or more multiples of groups=32: got \(4, 8\)"),
]  # fmt: skip


@pytest.mark.parametrize(("family", "of", "extra", "given", "message"), UNSEEN)
def test_what_the_shapes_do_not_show_is_named(family, of, extra, given, message, tmp_path):
    path = original(drawn(NETS[of]), tmp_path / "x.safetensors", **extra)
    with pytest.raises(ValueError, match=message) as caught:
        named(family).open(path, config=given)
    assert "\n" not in str(caught.value)


def test_attention_of_older_hub_files_is_read_under_its_newer_names():
    case = CASES["VQModel"]
    _, model, arrays, config = opened(case)
    newer = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    older = dict(arrays)
    for new, old in newer.items():
        older = {name.replace(f".{new}.", f".{old}."): array for name, array in older.items()}
    make, names = autoencoder_vq.build(config)
    stored = {name: held(array) for name, array in older.items()}
    again, _ = table.read(names, stored, eqx.filter_eval_shape(make, jr.key(0)))
    assert eqx.tree_equal(again, model)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"act_fn": "relu"}, "act_fn must be 'silu', as AutoencoderKL's: got 'relu'"),
        ({"out_channels": 6}, "out_channels must equal in_channels=3: got 6"),
        ({"use_post_quant_conv": False}, "use_post_quant_conv must equal use_quant_conv"),
        ({"up_block_types": ["AttnUpDecoderBlock2D"]}, "up_block_types must mirror down_block_types"),
        ({"block_out_channels": [64, 128]}, "block_out_channels must have a width for each"),
    ],
)
def test_a_config_that_the_model_lacks_is_named(values, message):
    with pytest.raises(Unsupported, match=message):
        autoencoder_kl.build(values)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AutoencoderConfig(widths=(4, 6), groups=4), r"model.widths must be one or more multiples of groups=4"),
        (lambda: AutoencoderConfig(attention=(4,)), r"model.attention must name levels in \[0, 4\): got \(4,\)"),
        (lambda: AutoencoderConfig.latent_diffusion(5), "factor must be one of 4, 8, 16: got 5"),
        (
            lambda: VQAutoencoder(3, 5, AutoencoderConfig(projected=False), key=jr.key(0)),
            "projected must be True: a codebook lies between",
        ),
        (lambda: KLAutoencoder(3, SMALL, key=jr.key(0)).encode(jnp.zeros((8, 7, 3))), "factor must divide width"),
        (lambda: KLAutoencoder(3, SMALL, key=jr.key(0)).encode(jnp.zeros((8, 8, 1))), "channels=3"),
        (lambda: KLAutoencoder(3, SMALL, key=jr.key(0)).decode(jnp.zeros((4, 4, 3))), "latent_dim=2"),
        (lambda: VQAutoencoder(3, 5, SMALL, key=jr.key(0)).decode(jnp.zeros(4, int)), r"ids must be \(rows, columns\)"),
    ],
)
def test_what_cannot_be_is_one_line(make, message):
    with pytest.raises(ValueError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_presets_have_the_published_sizes():
    shapes = lambda config: eqx.filter_eval_shape(lambda key: KLAutoencoder(3, config, key=key), jr.key(0))
    to_shapes = lambda config: sum(
        x.size for x in jax.tree.leaves(shapes(config)) if isinstance(x, jax.ShapeDtypeStruct)
    )
    assert to_shapes(AutoencoderConfig.stable_diffusion()) == 83_653_863


def test_a_draw_of_the_posterior_has_its_mean_and_deviation():
    rng = np.random.default_rng(0)
    posterior = DiagonalGaussian(*(jnp.asarray(rng.normal(size=(2, 2, 3)), jnp.float32) for _ in range(2)))
    draws = jax.vmap(lambda key: posterior.sample(key=key))(jr.split(jr.key(1), 2000))
    deviation = jnp.exp(0.5 * posterior.log_variance)
    np.testing.assert_allclose(draws.mean(0), posterior.mean, atol=float(deviation.max()) * 0.1)
    np.testing.assert_allclose(draws.std(0) / deviation, 1, atol=0.1)
