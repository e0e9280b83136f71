"""U-Nets are the published ones, in and out."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from eqxgen.pretrained import edm, from_pretrained, to_pretrained, unet
from tests import oracles
from tests.oracles._drawn import published

CASES, EDM = oracles.load("unet"), oracles.load("edm")


def close(out, wanted):
    scale = np.abs(wanted).max()
    np.testing.assert_allclose(out / scale, wanted / scale, atol=2e-5)


@pytest.mark.parametrize("name", CASES)
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


@pytest.mark.parametrize("name", EDM)
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
