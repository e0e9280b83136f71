"""GPT: equal to the published implementation in its logits, its files, its greedy text and a training run; its memory;
its family.
"""

# A case is a row, however long.

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import ml_dtypes
import numpy as np
import optax
import pytest
from safetensors.numpy import load_file, save_file

from eqxgen.configs import GPTConfig, Sampling
from eqxgen.decoding.autoregressive import generate
from eqxgen.losses.tokens import cross_entropy, next_token_losses, projected_cross_entropy, routed_losses
from eqxgen.models.gpt import GPT
from eqxgen.pretrained.gpt2 import from_pretrained, to_pretrained
from tests import oracles
from tests.arrays import integers
from tests.oracles._drawn import published as drawn_files
from tests.oracles.gpt2 import OTHER, SIZES
from train.config.optim import OptimConfig
from train.engine.step import trainable
from train.optim import optimiser

CONFIG = {"model_type": "gpt2", **SIZES, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


@pytest.fixture(scope="module")
def published():
    return oracles.load("gpt2")


@pytest.fixture
def folder(published, tmp_path):
    save_file(published["weights"], tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def test_logits_equal_the_published_models(published, folder):
    model, run = from_pretrained(folder), published["run"]
    found = jax.vmap(lambda ids: model(ids, inference=True))(jnp.asarray(run["ids"][0, :, :-1]))
    np.testing.assert_allclose(found, run["logits"], rtol=1e-5, atol=1e-5)


def test_greedy_text_equals_the_published_models(published, folder):
    found = generate(
        from_pretrained(folder), [published["run"]["ids"][0, 0, :5]], 19, Sampling(temperature=0.0), key=jr.key(0)
    )
    np.testing.assert_array_equal(found[0], published["run"]["greedy"])


def test_twenty_steps_of_training_lose_what_the_published_model_loses(published, folder):
    run, steps = published["run"], len(published["run"]["ids"])
    config = OptimConfig(learning_rate=1e-3, warmup=0, decay="constant", beta2=0.99, weight_decay=0.1)
    tx, model = optimiser(config, steps), from_pretrained(folder)
    state = tx.init(trainable(model))

    @eqx.filter_jit
    def step(model, state, ids):
        def loss(model):
            return jnp.mean(jax.vmap(lambda ids: next_token_losses(model, ids[:-1], ids[1:], inference=True))(ids))

        value, grads = eqx.filter_value_and_grad(loss)(model)
        updates, state = tx.update(grads, state, trainable(model))
        return eqx.apply_updates(model, updates), state, value

    losses = []
    for ids in run["ids"]:
        model, state, value = step(model, state, jnp.asarray(ids))
        losses.append(float(value))
    np.testing.assert_allclose(losses, run["losses"], atol=1e-3)
    assert losses[-1] < losses[0]


def test_files_go_back_as_they_came(published, folder, tmp_path):
    to_pretrained(from_pretrained(folder), tmp_path / "back")
    back = load_file(tmp_path / "back" / "model.safetensors")
    assert set(back) == set(published["weights"])
    for name, array in published["weights"].items():
        np.testing.assert_array_equal(back[name], array, err_msg=name)
    assert json.loads((tmp_path / "back" / "config.json").read_text()).items() >= CONFIG.items()


def test_another_activation_epsilon_and_head_are_the_published_ones(published, tmp_path):
    case = published["other"]
    arrays = drawn_files(case["shapes"])
    save_file(arrays, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(str(case["config"]))
    model, ids = from_pretrained(tmp_path), jnp.asarray(published["run"]["ids"][0, :, :-1])
    found = jax.jit(jax.vmap(lambda ids: model(ids, inference=True)))(ids)
    np.testing.assert_allclose(found, case["logits"], atol=1e-5 * np.abs(case["logits"]).max())
    to_pretrained(model, tmp_path / "back")
    back, config = load_file(tmp_path / "back" / "model.safetensors"), json.loads(str(case["config"]))
    assert back.keys() == arrays.keys()
    assert all(np.array_equal(back[name], arrays[name]) for name in arrays)
    written = json.loads((tmp_path / "back" / "config.json").read_text())
    assert {name: written[name] for name in OTHER} == {name: config[name] for name in OTHER} == OTHER


def rewritten(**changes):
    def change(folder):
        (folder / "config.json").write_text(json.dumps(CONFIG | changes))

    return change


def weights(change):
    def rewrite(folder):
        arrays = load_file(folder / "model.safetensors")
        change(arrays)
        save_file(arrays, folder / "model.safetensors")

    return rewrite


WTE = "transformer.wte.weight"
BAD_FOLDERS = [
    ("no config", lambda f: (f / "config.json").unlink(), r"config\.json: no such file: expected the folder of a published model"),
    ("a config that is no JSON", lambda f: (f / "config.json").write_text("{"), r"config\.json: cannot be read as JSON"),
    ("a config that is a list", lambda f: (f / "config.json").write_text("[]"), "must be a JSON object: got list"),
    ("another family", rewritten(model_type="bert"), "model_type must be 'gpt2': got 'bert'"),
    ("another activation", rewritten(activation_function="relu"), "activation_function must be one of gelu_new, .*: got 'relu'"),
    ("scaled layers", rewritten(scale_attn_by_inverse_layer_idx=True), "scale_attn_by_inverse_layer_idx must be False, as GPT-2's: got True"),
    ("a rate that is none", rewritten(attn_pdrop=1.5), r"model.attention_dropout must be in \[0, 1\): got 1.5"),
    ("heads that do not divide", rewritten(n_head=3), "model.heads must divide model.dim"),
    ("no vocabulary", rewritten(vocab_size=None), "vocab_size must be an integer: got None"),
    ("another depth", rewritten(n_layer=3), "array h.2.ln_1.weight is missing"),
    ("a smaller depth", rewritten(n_layer=1), "array h.1.attn.c_attn.bias is not of a GPT-2 of this config"),
    ("another width", rewritten(n_embd=32), r"array wte.weight must be floating-point\[37, 32\].*got float32\[37, 16\]"),
    ("no weights", lambda f: (f / "model.safetensors").unlink(), r"model\.safetensors: no such file"),
    ("damaged weights", lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 64), r"model\.safetensors: this file is damaged"),
    ("integers", weights(lambda a: a.update({WTE: a[WTE].astype(np.int32)})), "array wte.weight must be floating-point.*got int32"),
    ("a head of its own", weights(lambda a: a.update({"lm_head.weight": a[WTE] + 1})), "lm_head.weight must equal wte.weight"),
    ("a file outside", lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"x": "../y.safetensors"}}'), "must name .safetensors files in the same folder: got '../y.safetensors'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"), [case[1:] for case in BAD_FOLDERS], ids=[case[0] for case in BAD_FOLDERS]
)
def test_a_folder_that_cannot_be_read_is_an_error(change, message, folder):
    change(folder)
    with pytest.raises(ValueError, match=message):
        from_pretrained(folder)


def test_a_model_of_another_architecture_is_not_written_as_a_gpt2(tmp_path):
    for config in (GPTConfig.llama(8, 1, 2, 1, 8), GPTConfig(8, 1, 2, bias=False), GPTConfig(8, 1, 2, head_dim=3)):
        with pytest.raises(ValueError, match="model must be of GPT-2's architecture"):
            to_pretrained(GPT(5, config, key=jr.key(0)), tmp_path)
    assert not list(tmp_path.iterdir())


def as_bfloat16(arrays):
    arrays.update({name: array.astype(ml_dtypes.bfloat16) for name, array in arrays.items()})


def test_bfloat16_is_read_and_written_back_as_it_is_stored(published, folder, tmp_path):
    weights(as_bfloat16)(folder)
    model, wide = from_pretrained(folder), from_pretrained(folder, jnp.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_array))} == {jnp.dtype("bfloat16")}
    ids = jnp.asarray(published["run"]["ids"][0, 0, :-1])
    np.testing.assert_allclose(wide(ids, inference=True), published["run"]["logits"][0], atol=0.1)
    np.testing.assert_allclose(model(ids, inference=True), wide(ids, inference=True), atol=0.2)
    to_pretrained(model, tmp_path / "back")
    back, stored = load_file(tmp_path / "back" / "model.safetensors"), load_file(folder / "model.safetensors")
    assert back.keys() == stored.keys()
    assert all(back[name].dtype == "bfloat16" and np.array_equal(back[name], stored[name]) for name in stored)
    assert json.loads((tmp_path / "back" / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_a_tied_table_may_be_stored_as_the_heads_alone(published, folder):
    weights(lambda arrays: arrays.update({"lm_head.weight": arrays.pop(WTE)}))(folder)
    model = from_pretrained(folder)
    assert model.head is None
    np.testing.assert_array_equal(model.embedding.weight, published["weights"][WTE])


def test_dropout_rates_that_differ_are_read_used_and_written_back(folder, tmp_path):
    rates = {"resid_pdrop": 0.0, "embd_pdrop": 0.25, "attn_pdrop": 0.5}
    rewritten(**rates)(folder)
    model = from_pretrained(folder)
    block = model.stack.blocks
    assert (model.dropout.rate, block.attention.dropout.rate, block.mlp.dropout.rate) == (0.25, 0.0, 0.0)
    to_pretrained(model, tmp_path / "back")
    assert json.loads((tmp_path / "back" / "config.json").read_text()).items() >= rates.items()
    # The rate of the probabilities alone makes a layer's results random, and needs a key.
    layer, x = jax.tree.map(lambda leaf: leaf[0], eqx.filter(block.attention, eqx.is_array)), jnp.ones((5, 16))
    layer = eqx.combine(layer, block.attention)
    assert not np.allclose(layer(x, key=jr.key(0)), layer(x, inference=True))
    with pytest.raises(ValueError, match="needs key"):
        layer(x)


def test_a_write_that_fails_leaves_the_older_files(published, folder, monkeypatch):
    model, before = from_pretrained(folder), (folder / "model.safetensors").read_bytes()

    def torn(path, arrays, description):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("eqxgen.pretrained.formats.safetensors.write", torn)
    with pytest.raises(OSError, match="No space left"):
        to_pretrained(model, folder)
    assert (folder / "model.safetensors").read_bytes() == before
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}


def test_weights_in_several_files_with_an_index_are_read(published, folder):
    arrays = list(published["weights"].items())
    save_file(dict(arrays[:9]), folder / "a.safetensors")
    save_file(dict(arrays[9:]), folder / "b.safetensors")
    (folder / "model.safetensors").unlink()
    index = {name: "a.safetensors" if i < 9 else "b.safetensors" for i, (name, _) in enumerate(arrays)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    np.testing.assert_array_equal(from_pretrained(folder).embedding.weight, published["weights"][WTE])


def test_residual_ends_are_drawn_smaller_and_biases_at_zero():
    model = GPT(300, GPTConfig(dim=64, depth=8, heads=4, context=32), key=jr.key(0))
    blocks = model.stack.blocks
    for weight, expected in (
        (blocks.mlp.up.weight, 0.02),
        (blocks.mlp.down.weight, 0.005),
        (blocks.attention.out.weight, 0.005),
    ):
        assert float(jnp.std(weight)) == pytest.approx(expected, rel=0.03)
    assert not blocks.mlp.up.bias.any()
    assert float(jnp.std(model.positions)) == pytest.approx(0.02, rel=0.1)


SIZES_OF = {"gpt2": 124_439_808, "gpt2-medium": 354_823_168, "gpt2-large": 774_030_080, "gpt2-xl": 1_557_611_200}


@pytest.mark.parametrize("name", SIZES_OF)
def test_a_published_size_has_the_published_parameters(name):
    shapes = eqx.filter_eval_shape(lambda key: GPT(50257, GPTConfig.gpt2(name), key=key), jr.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes) if hasattr(leaf, "size")) == SIZES_OF[name]


def test_a_chunked_loss_is_the_whole_one_with_its_gradients():
    x, table = jr.normal(jr.key(0), (37, 8)), jr.normal(jr.key(1), (11, 8))
    bias, targets = jr.normal(jr.key(2), (11,)), jr.randint(jr.key(3), (37,), 0, 11)
    plain = lambda x, table, bias: optax.softmax_cross_entropy_with_integer_labels(x @ table.T + bias[None], targets)
    chunked = lambda x, table, bias: projected_cross_entropy(x, table, targets, bias=bias, chunk=8)
    np.testing.assert_allclose(chunked(x, table, bias), plain(x, table, bias), rtol=1e-5)
    both = [jax.grad(lambda *a, f=f: jnp.sum(f(*a) ** 2), argnums=(0, 1, 2))(x, table, bias) for f in (chunked, plain)]
    for found, expected in zip(*both):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_a_target_out_of_range_is_nan_and_not_another_token():
    losses = cross_entropy(jnp.zeros((3, 5)), jnp.asarray([4, 5, -1]))
    np.testing.assert_array_equal(jnp.isnan(losses), [False, True, True])


BAD_CONFIGS = [
    ({"dim": 10, "heads": 4}, "model.heads must divide model.dim: got model.dim=10, model.heads=4"),
    ({"heads": 12, "kv_heads": 5}, "model.kv_heads must divide model.heads: got model.heads=12, model.kv_heads=5"),
    ({"context": 0}, "model.context must be at least 1: got 0"),
    ({"dropout": 1.0}, r"model.dropout must be in \[0, 1\): got 1.0"),
    ({"positions": "sines"}, "model.positions must be one of learned, rotary: got 'sines'"),
    ({"dim": 12, "heads": 4, "positions": "rotary"}, "must be even for rotary positions: got 12 / 4"),
    ({"latent": 8}, "model.latent goes with model.positions=rotary"),
    ({"latent": 8, "positions": "rotary", "dropout": 0.1}, "model.latent goes without model.dropout"),
]


@pytest.mark.parametrize(("options", "message"), BAD_CONFIGS)
def test_sizes_that_cannot_be_are_an_error(options, message):
    with pytest.raises(ValueError, match=message):
        GPTConfig(**options)


def test_experts_decode_as_they_are_called_and_give_the_routing_of_each_block():
    sizes = {"dim": 16, "depth": 2, "heads": 2, "hidden_dim": 12, "context": 8}
    model = GPT(7, GPTConfig(**sizes, experts=3, capacity_factor=0.5), key=jr.key(0))
    ids = integers((6,), 7)

    both = lambda model: (model(ids, inference=True), model.routed(ids)[1], routed_losses(model, ids, ids)[1])
    called, routing, numbers = eqx.filter_jit(both)(model)
    step, cache = eqx.filter_jit(lambda model, token, cache: model.extend(token, cache)), model.cache()
    for place in range(6):
        logits, cache = step(model, ids[place : place + 1], cache)
        np.testing.assert_allclose(logits, called[place], atol=1e-5)
    np.testing.assert_array_equal(routing.load.sum(1), [12, 12])
    assert routing.overflow.sum() > 0
    np.testing.assert_allclose(numbers["overflow"], routing.overflow / 12, rtol=1e-6)
    np.testing.assert_allclose(numbers["expert_load"], routing.load.max(1) / 4, rtol=1e-6)
