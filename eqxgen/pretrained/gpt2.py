"""GPT-2's published weights (Radford et al. 2019) in Hugging Face's layout, such as a snapshot of
`openai-community/gpt2`: `model = from_pretrained(folder)`, and back by `to_pretrained(model, folder)`.

The logits equal the published model's. The dropout rates are the config's, for further training; decoding is without.
Rows of a padded vocabulary beyond the config's `vocab_size` are left out.
"""

from collections.abc import Callable, Mapping
from typing import Any

from jaxtyping import PRNGKeyArray

from eqxgen.configs import GPTConfig
from eqxgen.models.gpt import GPT
from eqxgen.pretrained.family import Family, Unsupported, integer, require_fixed, require_parts, require_same
from eqxgen.pretrained.outputs.texts import causal
from eqxgen.pretrained.table import Row, Table, Tied
from eqxgen.pretrained.transforms import CROPPED, TRANSPOSED, qkv, then

RATES = {"dropout": "resid_pdrop", "embedding_dropout": "embd_pdrop", "attention_dropout": "attn_pdrop"}
SIZES = {"dim": "n_embd", "depth": "n_layer", "heads": "n_head"}

ACTIVATIONS = {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh", "gelu": "gelu"}

# Options that `GPT` has no field for: name in config.json, the one supported value, the published default.
FIXED = {
    "scale_attn_weights": (True, True),
    "scale_attn_by_inverse_layer_idx": (False, False),
    "add_cross_attention": (False, False),
}


def table(heads: int, *, tied: bool = True) -> Table:
    """Names of `transformers.GPT2LMHeadModel`. Its matrices are (in, out), but that of a head of its own."""
    ours, theirs = "stack.blocks.{}.", "transformer.h.{}."
    joined = qkv(heads, parts=1)
    block = (
        ("attention_norm.scale", "ln_1.weight"),
        ("attention_norm.bias", "ln_1.bias"),
        ("attention.qkv.weight", "attn.c_attn.weight", then(TRANSPOSED, joined)),
        ("attention.qkv.bias", "attn.c_attn.bias", joined),
        ("attention.out.weight", "attn.c_proj.weight", TRANSPOSED),
        ("attention.out.bias", "attn.c_proj.bias"),
        ("mlp_norm.scale", "ln_2.weight"),
        ("mlp_norm.bias", "ln_2.bias"),
        ("mlp.up.weight", "mlp.c_fc.weight", TRANSPOSED),
        ("mlp.up.bias", "mlp.c_fc.bias"),
        ("mlp.down.weight", "mlp.c_proj.weight", TRANSPOSED),
        ("mlp.down.bias", "mlp.c_proj.bias"),
    )
    ends = (
        Row("embedding.weight", "transformer.wte.weight", CROPPED),
        Row("positions", "transformer.wpe.weight"),
        Row("norm.scale", "transformer.ln_f.weight"),
        Row("norm.bias", "transformer.ln_f.bias"),
    )
    head = () if tied else (Row("head.weight", "lm_head.weight", CROPPED),)
    return Table(
        "GPT-2",
        (*ends, *(Row(ours + path, theirs + name, *how) for path, name, *how in block), *head),
        tied=(Tied("lm_head.weight", "transformer.wte.weight"),) if tied else (),
        ignored={"h.*.attn.bias": "causal masks", "h.*.attn.masked_bias": "causal masks"},
        prefixes=("transformer.",),
    )


def build(values: Mapping[str, Any]) -> tuple[Callable[[PRNGKeyArray], GPT], Table]:
    """The model of a config, and its table."""
    require_fixed(values, FIXED, "GPT-2")
    sizes: dict[str, Any] = {ours: integer(values, theirs) for ours, theirs in SIZES.items()}
    rates: dict[str, Any] = {ours: float(values.get(theirs, 0.1)) for ours, theirs in RATES.items()}
    if (activation := values.get("activation_function", "gelu_new")) not in ACTIVATIONS:
        raise Unsupported(f"activation_function must be one of {', '.join(ACTIVATIONS)}: got {activation!r}")
    config = GPTConfig(
        **sizes,
        **rates,
        hidden_dim=None if values.get("n_inner") is None else int(values["n_inner"]),
        context=int(values.get("n_positions", 1024)),
        epsilon=float(values.get("layer_norm_epsilon", 1e-5)),
        mlp=ACTIVATIONS[activation],
        tied=bool(values.get("tie_word_embeddings", True)),
    )
    vocab = integer(values, "vocab_size")
    return lambda key: GPT(vocab, config, key=key), table(config.heads, tied=config.tied)


def describe(model: GPT) -> tuple[dict[str, Any], Table]:
    """Values of config.json, and the table.

    Raises:
        ValueError: the model is not of GPT-2's architecture: learned positions, biases, GELU, a key head for each query
            head.
    """
    attention, mlp = model.stack.blocks.attention, model.stack.blocks.mlp
    mapping = table(attention.heads, tied=model.head is None)
    require_parts(model, mapping)
    named = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
    depth, hidden, dim = mlp.up.weight.shape
    even = attention.kv_heads == attention.heads and attention.heads * attention.head_dim == dim
    same = even and attention.rope is None and mlp.activation.name in named
    require_same(same, "GPT-2", "as many key heads as heads, heads of dim / heads, no rotary positions, GELU")
    config = {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        "vocab_size": model.vocab,
        "n_positions": model.context,
        "n_ctx": model.context,
        "n_embd": dim,
        "n_layer": depth,
        "n_head": attention.heads,
        "n_inner": hidden,
        "activation_function": named[mlp.activation.name],
        "layer_norm_epsilon": model.norm.epsilon,
        "tie_word_embeddings": model.head is None,
        "resid_pdrop": attention.dropout.rate,
        "embd_pdrop": model.dropout.rate,
        "attn_pdrop": attention.probs_dropout.rate,
        "torch_dtype": str(model.embedding.weight.dtype),
        **{name: value for name, (value, _) in FIXED.items()},
    }
    return config, mapping


GPT2 = Family("GPT-2", ("gpt2",), build, describe, causal)
from_pretrained, to_pretrained = GPT2.from_pretrained, GPT2.to_pretrained

__all__ = ["from_pretrained", "to_pretrained"]
