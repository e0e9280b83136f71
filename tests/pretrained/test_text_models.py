"""BERT, LLaMA and T5 in published layouts: outputs of the published models, their files back to the bit, their text."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from eqxgen import pretrained
from eqxgen.configs import BERTConfig, GPTConfig, Sampling, T5Config
from eqxgen.decoding.autoregressive import generate
from eqxgen.decoding.beam import beam_search
from eqxgen.models import BERT, GPT, T5, BERTClassifier
from tests import oracles
from tests.full import full
from tests.oracles import bert, llama, t5
from tests.oracles._drawn import published as drawn_files

FAMILIES = {"bert": bert, "llama": llama, "t5": t5}
VARIANTS = [(family, variant) for family, module in FAMILIES.items() for variant in module.VARIANTS]
each_variant = pytest.mark.parametrize(("family", "variant"), VARIANTS)


@pytest.fixture(scope="module")
def published():
    return {family: oracles.load(family) for family in FAMILIES}


@pytest.fixture
def folder(published, tmp_path):
    def write(family, variant, arrays=None, **changes):
        kept = published[family][f"{variant}/files"]
        config, files = json.loads(str(kept["config"])), drawn_files(kept["shapes"])
        for name, value in changes.items():
            config.pop(name, None)
            config |= {} if value is None else {name: value}
        save_file(files if arrays is None else arrays(files), tmp_path / "model.safetensors")
        (tmp_path / "config.json").write_text(json.dumps(config))
        return tmp_path

    return write


def found_output(family, variant, model, run):
    """The output that is kept of the published model; of real tokens alone where padding is undefined."""
    if family == "llama":
        return jax.vmap(lambda ids: model(ids, inference=True))(run["ids"])
    if family == "t5" and variant == "encoder":
        return jax.vmap(lambda ids, mask: model(ids, mask=mask, inference=True))(run["source"], run["mask"])
    if family == "t5":
        call = lambda source, target, mask: model(source, target, mask=mask, inference=True)
        return jax.vmap(call)(run["source"], run["target"], run["mask"])
    call = lambda ids, types, mask: model(ids, types, mask=mask, inference=True)
    states = jax.vmap(call)(run["ids"], run["types"], run["mask"])
    return jax.vmap(model.pooled)(states) if variant == "pooled" else states


def assert_equal_outputs(family, variant, model, run):
    found, wanted = np.asarray(found_output(family, variant, model, run)), run["output"]
    assert found.shape == wanted.shape
    if found.shape[:-1] == run.get("mask", found).shape:
        found, wanted = found[run["mask"]], wanted[run["mask"]]
    np.testing.assert_allclose(found, wanted, atol=1e-5 * np.abs(wanted).max())


@each_variant
def test_outputs_equal_the_published_models_and_its_files_come_back_to_the_bit(
    family, variant, published, folder, tmp_path
):
    source, run = folder(family, variant), published[family][f"{variant}/run"]
    opened, model = pretrained.open_pretrained(source), pretrained.from_pretrained(source)
    assert not opened.coverage.missing
    assert not opened.coverage.extra
    assert_equal_outputs(family, variant, model, run)
    pretrained.to_pretrained(model, tmp_path / "back", family)
    stored, back = load_file(source / "model.safetensors"), load_file(tmp_path / "back" / "model.safetensors")
    short = lambda names: {name.removeprefix("bert.") for name in names}
    ignored = opened.coverage.ignored.keys()
    assert short(stored.keys() - back.keys()) == ignored - short(back)
    assert not back.keys() - stored.keys()
    for name, array in back.items():
        if name not in ignored:
            np.testing.assert_array_equal(array, stored[name], err_msg=name)
    assert eqx.tree_equal(pretrained.from_pretrained(tmp_path / "back"), model)


@pytest.mark.parametrize("variant", ["3.1", *(pytest.param(v, marks=full) for v in llama.VARIANTS if v != "3.1")])
def test_greedy_text_of_llama_equals_the_published_models(variant, published, folder):
    run = published["llama"][f"{variant}/run"]
    model = pretrained.from_pretrained(folder("llama", variant))
    found = generate(model, [run["ids"][0, :5]], 12, Sampling(temperature=0.0), key=jr.key(0))
    np.testing.assert_array_equal(found[0], run["greedy"])


@pytest.mark.parametrize("variant", [pytest.param(v, marks=full) for v in ("1.1", "1.0")])
def test_beams_of_t5_equal_the_published_models(variant, published, folder):
    run = published["t5"][f"{variant}/run"]
    model = pretrained.from_pretrained(folder("t5", variant))
    written = model.conditioned(run["source"][1], mask=jnp.asarray(run["mask"][1]))
    found, _ = beam_search(written, [0], t5.LENGTH, t5.BEAMS)
    np.testing.assert_array_equal(found, run[f"beams_{t5.BEAMS}"])
    drawn = generate(written, [[0], [0]], t5.LENGTH, Sampling(temperature=0.0), key=jr.key(0))
    np.testing.assert_array_equal(drawn, [run["beams_1"]] * 2)


def old_bert(arrays):
    names = {".LayerNorm.weight": ".LayerNorm.gamma", ".LayerNorm.bias": ".LayerNorm.beta"}
    found = {}
    for name, array in arrays.items():
        new = next((new for new in names if name.endswith(new)), "")
        found[name.removesuffix(new) + names.get(new, "")] = array
    tied = {"cls.predictions.decoder.weight": arrays["bert.embeddings.word_embeddings.weight"]}
    return found | tied | {"bert.embeddings.position_ids": np.arange(17)[None]}


def old_llama(arrays):
    return arrays | {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": np.ones(2, np.float32) for layer in (0, 1)}


def old_t5(arrays):
    shared = arrays["shared.weight"]
    copies = {f"{half}.embed_tokens.weight": shared for half in ("encoder", "decoder")}
    unused = {"decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight": np.ones((8, 3), np.float32)}
    return arrays | copies | unused | {"lm_head.weight": shared}


OLDER = [
    ("bert", "masked", old_bert, {}),
    ("bert", "encoder", lambda arrays: {f"bert.{name}": array for name, array in arrays.items()}, {}),
    ("llama", "2", old_llama, {"rope_parameters": None, "rope_theta": 10_000.0, "head_dim": None}),
    ("llama", "3.1", None, {"rope_parameters": None, "rope_theta": 500_000.0, "rope_scaling": llama.LLAMA3}),
    ("llama", "narrow heads", None, {"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 4.0}}),
    ("t5", "1.0", old_t5, {"scale_decoder_outputs": None}),
    ("llama", "tied", None, {"hidden_act": "swish"}),
    ("bert", "masked, untied", None, {"hidden_act": "gelu_fast"}),
    ("t5", "1.1", None, {"scale_decoder_outputs": None, "tie_word_embeddings": False}),
    ("t5", "1.1", None, {"feed_forward_proj": "gated-gelu_new"}),
]


@pytest.mark.parametrize(
    ("family", "variant", "arrays", "changes"), OLDER, ids=[f"{f} {v} {i}" for i, (f, v, *_) in enumerate(OLDER)]
)
def test_files_and_configs_of_older_libraries_give_the_same_model(family, variant, arrays, changes, folder):
    model = pretrained.from_pretrained(folder(family, variant))
    assert eqx.tree_equal(pretrained.from_pretrained(folder(family, variant, arrays, **changes)), model)


def test_the_encoder_of_a_whole_t5_is_read_alone(folder):
    whole = pretrained.from_pretrained(folder("t5", "1.0"))
    encoder = pretrained.from_pretrained(folder("t5", "1.0", architectures=["T5EncoderModel"]))
    assert eqx.tree_equal((encoder.embedding, encoder.encoder), (whole.embedding, whole.encoder))


def test_bfloat16_files_stay_bfloat16(folder, tmp_path):
    for family, variant in (("bert", "masked"), ("llama", "3.1"), ("t5", "1.1")):
        halved = lambda arrays: {name: array.astype(jnp.bfloat16) for name, array in arrays.items()}
        model = pretrained.from_pretrained(folder(family, variant, halved))
        pretrained.to_pretrained(model, tmp_path / "back", family)
        back = load_file(tmp_path / "back" / "model.safetensors")
        assert {array.dtype for array in back.values()} == {np.dtype(jnp.bfloat16)}
        config = json.loads((tmp_path / "back" / "config.json").read_text())
        assert config["torch_dtype"] == "bfloat16"


UNSUPPORTED = [
    ("bert", "encoder", {"position_embedding_type": "relative_key"}, "position_embedding_type must be 'absolute', as BERT's: got 'relative_key'"),
    ("bert", "encoder", {"is_decoder": True}, "is_decoder must be False, as BERT's: got True"),
    ("bert", "encoder", {"hidden_act": "mish"}, "hidden_act must be one of gelu, .*: got 'mish'"),
    ("bert", "encoder", {"architectures": ["BertForQuestionAnswering"]}, "architectures must be one of BertModel, .*: got 'BertForQuestionAnswering'"),
    ("bert", "encoder", {"num_attention_heads": 5}, "model.heads must divide model.dim"),
    ("bert", "encoder", {"num_hidden_layers": 3}, "encoder.layer.2"),
    ("llama", "2", {"hidden_act": "gelu"}, "hidden_act must be 'silu', as LLaMA's: got 'gelu'"),
    ("llama", "2", {"attention_bias": True}, "self_attn.q_proj.bias is missing, and 7 more"),
    ("bert", "encoder", {"hidden_size": [3, 4]}, r"hidden_size must be an integer: got \[3, 4\]"),
    ("llama", "2", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "rope_type must be one of default, linear, llama3: got 'yarn'"),
    ("llama", "2", {"rope_parameters": {"rope_type": "llama3", "factor": 2.0}}, "is not the config of a LLaMA: KeyError: 'low_freq_factor'"),
    ("llama", "2", {"partial_rotary_factor": 0.5}, "partial_rotary_factor must be 1, as LLaMA's: got 0.5"),
    ("llama", "2", {"num_key_value_heads": 3}, "model.kv_heads must divide model.heads"),
    ("llama", "2", {"vocab_size": 32}, r"\[32, 16\].*got float32\[31, 16\]"),
    ("t5", "1.0", {"feed_forward_proj": "gated-mish"}, "feed_forward_proj must be one of relu, .*: got 'gated-mish'"),
    ("t5", "1.0", {"architectures": ["T5ForQuestionAnswering"]}, "architectures must be one of T5ForConditionalGeneration, .*: got 'T5ForQ"),
    ("t5", "1.0", {"relative_attention_num_buckets": 6}, "model.buckets must be a positive multiple of 4: got 6"),
    ("t5", "1.0", {"feed_forward_proj": "gated-gelu"}, "DenseReluDense.wi_1.weight"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("family", "variant", "changes", "message"),
    UNSUPPORTED,
    ids=[f"{row[0]} {next(iter(row[2]))}" for row in UNSUPPORTED],
)
def test_a_config_that_is_not_supported_is_one_clear_error(family, variant, changes, message, folder):
    with pytest.raises(ValueError, match=message) as caught:
        pretrained.from_pretrained(folder(family, variant, **changes))
    assert "\n" not in str(caught.value)


WRONG = [
    (lambda: GPT(5, GPTConfig(8, 1, 2, context=8), key=jr.key(0)), "llama", "model must be of LLaMA's architecture"),
    (lambda: GPT(5, GPTConfig.mla(8, 1, 2, 4, 8), key=jr.key(0)), "llama", "model must be of LLaMA's architecture"),
    (lambda: GPT(5, GPTConfig.llama(8, 1, 2, 1, 8), key=jr.key(0)), "bert", "model must be a BERT, .*: got GPT"),
    (lambda: GPT(5, GPTConfig.llama(8, 1, 2, 1, 8), key=jr.key(0)), "t5", "model must be a T5 or a T5Encoder: got GPT"),
    (
        lambda: T5(5, T5Config(8, 1, heads=2, head_dim=3, hidden_dim=4, scaled=False), key=jr.key(0)),
        "t5",
        "a scale of its head if and only if it is tied: got 1.0",
    ),
]


@pytest.mark.parametrize(("make", "family", "message"), WRONG, ids=[f"{row[1]} {i}" for i, row in enumerate(WRONG)])
def test_a_model_of_another_architecture_is_not_written(make, family, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        pretrained.to_pretrained(eqx.filter_eval_shape(make), tmp_path, family)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("make", "count"),
    [
        (lambda key: BERT(30_522, BERTConfig.base(), key=key), 109_482_240),
        (lambda key: BERT(30_522, BERTConfig.large(), key=key), 335_141_888),
        (lambda key: T5(32_128, T5Config.v1_0("small"), key=key), 60_506_624),
        (lambda key: T5(32_128, T5Config.v1_1("xxl"), key=key), 11_135_332_352),
        (lambda key: GPT(32_000, GPTConfig.llama2("7b"), key=key), 6_738_415_616),
        (lambda key: GPT(128_256, GPTConfig.llama3_1("8b"), key=key), 8_030_261_248),
    ],
    ids=["BERT-base", "BERT-large", "T5-small", "T5 1.1 xxl", "LLaMA 2 7B", "LLaMA 3.1 8B"],
)
def test_a_published_size_has_its_number_of_parameters(make, count):
    leaves = jax.tree.leaves(eqx.filter_eval_shape(make, jr.key(0)))
    assert sum(leaf.size for leaf in leaves if isinstance(leaf, jax.ShapeDtypeStruct)) == count


@full
@each_variant
def test_the_published_library_reads_what_is_written(family, variant, published, folder, tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    model = pretrained.from_pretrained(folder(family, variant))
    pretrained.to_pretrained(model, tmp_path / "back", family)
    theirs, _ = FAMILIES[family].make(variant)
    back = type(theirs).from_pretrained(tmp_path / "back").state_dict()
    ignored = pretrained.open_pretrained(tmp_path).coverage.ignored
    for name, array in theirs.state_dict().items():
        assert name in ignored or torch.equal(back[name], array), name


def test_the_classifier_and_the_pooled_vector_say_what_they_lack(folder):
    masked = pretrained.from_pretrained(folder("bert", "masked"))
    with pytest.raises(ValueError, match="pooled needs a BERT with pooled=True"):
        masked.bert.pooled(jnp.zeros((3, 12)))
    with pytest.raises(ValueError, match="labels must be an integer of at least 1: got 0"):
        BERTClassifier(5, 0, BERTConfig(8, 1, 2), key=jr.key(0))
