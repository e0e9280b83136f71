"""U-Nets are the published ones, in and out."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from eqxgen.configs import EDM2Config, UNetConfig, UViTConfig
from eqxgen.models.denoisers.unet import UNet
from eqxgen.models.denoisers.unet_guides import LowResolution, Upsampler
from eqxgen.models.denoisers.uvit import UViT
from eqxgen.nn import force_weight_norm
from eqxgen.pretrained import from_pretrained, to_pretrained
from eqxgen.pretrained.denoisers import adm, edm, edm2, unet
from eqxgen.pretrained.family import Unsupported
from tests import oracles
from tests.full import rows
from tests.oracles._drawn import published

EDM2 = oracles.load("edm2")
SMALL = UNetConfig(width=8, multipliers=(1, 2), blocks=1, groups=4)
CASES, EDM, GUIDED = oracles.load("unet"), oracles.load("edm"), oracles.load("guided")


def close(out, wanted, atol=2e-5):
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(out / scale, wanted / scale, atol=atol)


@pytest.mark.parametrize("name", rows(CASES, "DDPM", "defaults"))
def test_a_published_unet_has_its_outputs_and_is_written_to_the_bit(name, tmp_path):
    case = CASES[name]
    config, arrays = json.loads(str(case["config"])), published(case["shapes"])
    save_file(arrays, tmp_path / "diffusion_pytorch_model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    model = from_pretrained(tmp_path)
    inputs = [jnp.asarray(case["x"]), jnp.asarray(case["time"], jnp.float32)]
    inputs += [jnp.asarray(case["label"])] if model.classes else []
    close(jax.jit(jax.vmap(lambda *x: model(*x, inference=True)))(*inputs), case["out"])
    to_pretrained(model, tmp_path / "again", "unet")
    again = load_file(tmp_path / "again" / "diffusion_pytorch_model.safetensors")
    assert again.keys() == arrays.keys()
    assert all(np.array_equal(again[name], arrays[name]) for name in arrays)
    assert unet.sizes(json.loads((tmp_path / "again" / "config.json").read_text(encoding="utf-8"))) == model.config


@pytest.mark.parametrize("name", rows(EDM, "DDPM++", "ADM"))
def test_edms_unets_have_their_outputs_and_are_written_to_the_bit(name, tmp_path):
    case = EDM[name]
    config, arrays = json.loads(str(case["config"])), published(case["shapes"])
    arrays |= {"map_noise.freqs": case["frequencies"]} if "frequencies" in case else {}
    extra = {"enc.4x4_down.conv0.resample_filter": np.ones((1, 1, 2, 2), np.float32)}
    save_file({f"model.{name}": array for name, array in (arrays | extra).items()}, tmp_path / "net.safetensors")
    model = edm.from_pretrained(tmp_path / "net.safetensors", config=config)
    labels = jnp.asarray([3, 5]) if model.classes else None
    augment = jnp.asarray(case["augment"]) if model.time.augment is not None else None
    call = lambda x, noise, label, augment: model(x, noise, label, augment=augment, inference=True)
    close(jax.jit(jax.vmap(call))(jnp.asarray(case["x"]), jnp.asarray(case["noise"]), labels, augment), case["out"])
    again = edm.state_dict(model, config["img_resolution"])
    assert again.keys() == arrays.keys()
    assert all(np.array_equal(again[name], arrays[name]) for name in arrays)


@pytest.mark.parametrize(
    "name", rows(GUIDED, "classifier, pooled by the mean", "ADM, convolutions between levels", "ADM")
)
def test_adms_nets_have_their_outputs_and_are_written_to_the_bit(name, tmp_path):
    case = GUIDED[name]
    config, arrays = json.loads(str(case["config"])), published(case["shapes"])
    save_file(arrays, tmp_path / "net.safetensors")
    model = adm.from_pretrained(tmp_path / "net.safetensors", config=config)
    inputs = [jnp.asarray(case["x"]), jnp.asarray(case["time"], jnp.float32)]
    if isinstance(model, Upsampler):
        inputs += [LowResolution(jnp.asarray(case["low"]), jnp.asarray(case["label"]))]
    elif "num_classes" in config:
        inputs += [jnp.asarray(case["label"])]
    close(jax.jit(jax.vmap(lambda *x: model(*x, inference=True)))(*inputs), case["out"])
    if not config.get("use_new_attention_order"):  # written in the older order
        adm.to_pretrained(model, tmp_path / "again")
        again = load_file(tmp_path / "again" / "model.safetensors")
        assert again.keys() == arrays.keys()
        assert all(np.array_equal(again[name], arrays[name]) for name in arrays)


@pytest.mark.parametrize(
    ("read", "values", "message"),
    [
        (unet.build, {"mid_block_type": None}, "mid_block_type must be 'UNetMidBlock2D'"),
        (unet.build, {"time_embedding_type": "fourier"}, "time_embedding_type must be 'positional'"),
        (unet.build, {"up_block_types": ["UpBlock2D"] * 4}, "up_block_types must mirror down_block_types"),
        (
            unet.build,
            {"attention_head_dim": 64},
            "attention_head_dim must divide the block_out_channels with attention",
        ),
        (
            edm.build,
            {"class": "SongUNet", "encoder_type": "skip"}
            | dict.fromkeys(("in_channels", "out_channels"), 3)
            | {"img_resolution": 32},
            "encoder_type must be standard or residual: got 'skip'",
        ),
        (
            adm.build,
            {
                "class": "EncoderUNetModel",
                "pool": "spatial",
                "image_size": 8,
                "out_channels": 2,
                "model_channels": 32,
                "num_res_blocks": 1,
                "attention_resolutions": [],
            },
            "pool must be attention or adaptive",
        ),
    ],
)
def test_an_option_that_the_unets_lack_is_named(read, values, message):
    with pytest.raises(Unsupported, match=message):
        read(values)


def test_an_image_that_cannot_be_halved_and_a_missing_label_are_named():
    net = eqx.filter_eval_shape(lambda: UNet(3, 5, SMALL, key=jax.random.key(0)))
    time = jnp.float32(0)
    call = lambda x, *label: eqx.filter_eval_shape(lambda net: net(x, time, *label, inference=True), net)
    with pytest.raises(ValueError, match="factor must divide width: got width=7, factor=2"):
        call(jnp.ones((8, 7, 3)), jnp.int32(0))
    with pytest.raises(ValueError, match=r"label must be given: .* \[0, 5\), or 5 for no class"):
        call(jnp.ones((8, 8, 3)))
    with pytest.raises(ValueError, match=r"x must be \(height, width, channels=3\): got shape \(8, 8, 4\)"):
        call(jnp.ones((8, 8, 4)), jnp.int32(0))
    with pytest.raises(ValueError, match=r"model.attention must name levels in \[0, 2\)"):
        UNetConfig(multipliers=(1, 2), attention=(2,))


@pytest.mark.parametrize("name", rows(EDM2, "EDM2 without classes"))
def test_edm2s_unet_has_its_outputs_and_is_written_to_the_bit(name, tmp_path):
    case = EDM2[name]
    config, arrays = json.loads(str(case["config"])), published(case["shapes"])
    arrays |= {part.removeprefix("buffer."): array for part, array in case.items() if part.startswith("buffer.")}
    save_file(arrays, tmp_path / "net.safetensors")
    model = edm2.from_pretrained(tmp_path / "net.safetensors", config=config)
    labels = jnp.asarray([3, 5]) if model.classes else None
    call = lambda x, noise, label: (model(x, noise, label, inference=True), model.log_variance(noise))
    out, variance = jax.jit(jax.vmap(call))(jnp.asarray(case["x"]), jnp.asarray(case["noise"]), labels)
    close(out, case["out"])
    close(variance, case["log_variance"])
    again = edm2.state_dict(model, config["img_resolution"])
    assert again.keys() == arrays.keys()
    assert all(np.array_equal(again[name], arrays[name]) for name in arrays)
    inputs = [jnp.asarray(case[name])[0] for name in ("x", "noise")] + [None if labels is None else labels[0]]
    run = eqx.filter_jit(lambda model, *x: model(*x, inference=True))
    close(run(force_weight_norm(model), *inputs), case["out"][0], atol=5e-3)  # the epsilon, 1e-4, counts twice


def test_a_bad_size_of_edm2_or_uvit_is_named():
    with pytest.raises(ValueError, match=r"model\.head_dim must divide the 16 channels of level 1: got 12"):
        EDM2Config(width=8, multipliers=(1, 2), attention=(1,), head_dim=12)
    with pytest.raises(ValueError, match="size must be one of xs, s, m, l, xl, xxl: got 'tiny'"):
        EDM2Config.of("tiny")
    with pytest.raises(ValueError, match=r"model\.depth must be odd and at least 3: got 4"):
        UViTConfig(depth=4)
    with pytest.raises(ValueError, match="patch must divide width: got width=5, patch=2"):
        UViT(4, 5, 3, None, UViTConfig(), key=jax.random.key(0))
    net = eqx.filter_eval_shape(lambda: UViT(4, 4, 3, None, UViTConfig.textbrush(), key=jax.random.key(0)))
    with pytest.raises(ValueError, match="label must be None: the net has classes=None"):
        eqx.filter_eval_shape(lambda net: net(jnp.ones((4, 4, 3)), jnp.float32(0), jnp.int32(0)), net)


@pytest.mark.parametrize(
    ("config", "millions"),
    [
        (UNetConfig.ddpm(), 36),
        (UNetConfig.ddpm(256), 114),
        (UNetConfig.ddpmpp(), 56),
        (UNetConfig.adm(64), 296),
        (UNetConfig.adm(128), 422),
        (UNetConfig.adm(256), 554),
        (UNetConfig.adm(512), 559),
    ],
)
def test_a_preset_has_the_papers_number_of_parameters(config, millions):
    classes = 1000 if config.learn_variance else None
    model = eqx.filter_eval_shape(lambda: UNet(3, classes, config, key=jax.random.key(0)))
    count = sum(x.size for x in jax.tree.leaves(model) if isinstance(x, jax.ShapeDtypeStruct))
    assert round(count / 1e6) == millions
