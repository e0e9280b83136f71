"""DiT is the published one, in and out."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from eqxgen.configs import DiTConfig
from eqxgen.models import DiT
from eqxgen.pretrained import dit, from_pretrained, table, to_pretrained
from eqxgen.pretrained.denoisers import lightning_dit, uvit
from eqxgen.pretrained.family import Unsupported
from eqxgen.pretrained.formats.stored import held
from tests import oracles
from tests.oracles._drawn import published

CASES, OTHERS = oracles.load("dit"), oracles.load("transformers_of_images")
SMALL = DiTConfig(dim=16, depth=2, heads=2, hidden_dim=64, learn_variance=False)


def arrays_of(case):
    """The published arrays, with the embeddings of the first block in all."""
    arrays = published(case["shapes"])
    first = "transformer_blocks.0.norm1.emb."
    place = lambda name: first + name.partition(".norm1.emb.")[2] if ".norm1.emb." in name else name
    return {name: arrays[place(name)] for name in arrays}


def write(folder, config, arrays):

    save_file(arrays, folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


@pytest.mark.parametrize("name", CASES)
def test_a_published_dit_has_its_outputs_and_is_written_to_the_bit(name, tmp_path):
    case = CASES[name]
    config, arrays = json.loads(str(case["config"])), arrays_of(case)
    write(tmp_path, config, arrays)
    model = from_pretrained(tmp_path)
    time, label = jnp.asarray(case["time"], jnp.float32), jnp.asarray(case["label"])
    out = jax.jit(jax.vmap(model))(jnp.asarray(case["x"]), time, label)
    scale = np.abs(case["out"]).max()
    np.testing.assert_allclose(out / scale, case["out"] / scale, atol=2e-5)
    to_pretrained(model, tmp_path / "again", "dit")
    again = load_file(tmp_path / "again" / "diffusion_pytorch_model.safetensors")
    assert again.keys() == arrays.keys()
    assert all(np.array_equal(again[name], arrays[name]) for name in arrays)


def test_an_original_checkpoint_has_one_projection_for_both_halves_of_a_block():
    model = eqx.filter_jit(lambda key: DiT(4, 4, 3, 5, SMALL, key=key))(jr.key(0))
    model = jax.tree.map(lambda x: x + 0.5 if eqx.is_array(x) else x, model)
    names = dit.table(2, 2, 2)
    original = table.Table("DiT", tuple(reversed(names.rows)))
    arrays = table.written(original, model)
    assert arrays["blocks.1.adaLN_modulation.1.weight"].shape == (6 * 16, 16)
    assert arrays["x_embedder.proj.weight"].shape == (16, 3, 2, 2)
    whole = {name: held(np.asarray(array.read(...))) for name, array in arrays.items()}
    whole["pos_embed"] = held(np.zeros((1, 4, 16), np.float32))
    shapes = eqx.filter_eval_shape(lambda key: DiT(4, 4, 3, 5, SMALL, key=key), jr.key(1))
    again, coverage = table.read(names, whole, shapes)
    assert eqx.tree_equal(again, model)
    assert "1 (pos_embed) ignored: fixed positions" in coverage.line


def test_embeddings_that_differ_between_blocks_are_refused(tmp_path):
    case = CASES["defaults"]
    write(tmp_path, json.loads(str(case["config"])), published(case["shapes"]))
    with pytest.raises(ValueError, match=r"norm1.emb.* must equal transformer_blocks.0.norm1.emb.*: they differ"):
        from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"norm_type": "layer_norm"}, "norm_type must be 'ada_norm_zero', as DiT's: got 'layer_norm'"),
        ({"out_channels": 5}, "out_channels must be once or twice in_channels=4: got 5"),
    ],
)
def test_a_config_that_the_model_lacks_is_named(values, message):
    with pytest.raises(Unsupported, match=message):
        dit.build(values)


def test_another_dit_is_not_written_as_diffusers():
    model = eqx.filter_eval_shape(lambda key: DiT(4, 4, 3, 5, SMALL, key=key), jr.key(0))
    with pytest.raises(ValueError, match="time_shift=1"):
        dit.describe(model)


@pytest.mark.parametrize("name", OTHERS)
def test_a_published_uvit_or_modern_dit_has_its_outputs_and_is_written_to_the_bit(name, tmp_path):
    case = OTHERS[name]
    config, arrays = json.loads(str(case["config"])), published(case["shapes"])
    arrays.pop("pos_embed") if name.startswith("Lightning") else None
    save_file(arrays, tmp_path / "net.safetensors")
    family = uvit if name.startswith("U-ViT") else lightning_dit
    model = family.from_pretrained(tmp_path / "net.safetensors", config=config)
    inputs = [jnp.asarray(case["x"]), jnp.asarray(case["time"])]
    inputs += [jnp.asarray(case["label"])] if model.classes else []
    out = jax.jit(jax.vmap(model))(*inputs)
    scale = np.abs(case["out"]).max()
    np.testing.assert_allclose(out / scale, case["out"] / scale, atol=2e-5)
    family.to_pretrained(model, tmp_path / "again")
    again = load_file(tmp_path / "again" / "model.safetensors")
    assert again.keys() == arrays.keys()
    assert all(np.array_equal(again[name], arrays[name]) for name in arrays)
    values = json.loads((tmp_path / "again" / "config.json").read_text(encoding="utf-8"))
    assert eqx.tree_equal(family.from_pretrained(tmp_path / "again" / "model.safetensors", config=values), model)
