"""T5's published weights (Raffel et al. 2020), versions 1.0 and 1.1, in Hugging Face's layout, such as a snapshot of
`google-t5/t5-small` or `google/t5-v1_1-xxl`.

The architecture that config.json names gives the model: `T5`, or `T5Encoder` of a `T5EncoderModel`.
"""

from collections.abc import Callable, Mapping
from typing import Any

from jaxtyping import PRNGKeyArray

from eqxgen.configs import T5Config
from eqxgen.models import t5 as models
from eqxgen.nn import GLU
from eqxgen.pretrained.family import Family, Unsupported, integers, require_parts
from eqxgen.pretrained.outputs.texts import translated
from eqxgen.pretrained.table import Row, Table, Tied
from eqxgen.pretrained.transforms import GATED, SAME, interleaved, qkv

SIZES = {
    "dim": ("d_model", 512),
    "depth": ("num_layers", 6),
    "heads": ("num_heads", 8),
    "head_dim": ("d_kv", 64),
    "hidden_dim": ("d_ff", 2048),
    "buckets": ("relative_attention_num_buckets", 32),
    "max_distance": ("relative_attention_max_distance", 128),
    "context": ("n_positions", 512),
}
# Activation of the MLPs and whether they are gated.
FORWARD = {
    "relu": ("relu", False),
    "gated-gelu": ("gelu_tanh", True),
    "gated-gelu_new": ("gelu_tanh", True),
    "gated-silu": ("swish", True),
    "gated-relu": ("relu", True),
    "gelu_new": ("gelu_tanh", False),
    "gelu": ("gelu", False),
    "silu": ("swish", False),
}
ARCHITECTURES = ("T5ForConditionalGeneration", "T5Model", "T5EncoderModel")


def table(heads: int, *, gated: bool, tied: bool, decoder: bool = True, headed: bool = True) -> Table:
    """Names of `transformers.T5ForConditionalGeneration` and `T5EncoderModel`."""
    rows = [Row("embedding.weight", "shared.weight"), *_half("encoder", heads, gated)]
    copies = [Tied("encoder.embed_tokens.weight", "shared.weight")]
    ignored = {}
    if not decoder:
        ignored = {"decoder.*": "the decoder", "lm_head.weight": "head of the decoder"}
        return Table("T5", tuple(rows), tuple(copies), ignored)
    rows += _half("decoder", heads, gated)
    copies.append(Tied("decoder.embed_tokens.weight", "shared.weight"))
    ignored["decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"] = (
        "not used by the published model"
    )
    if tied:
        copies.append(Tied("lm_head.weight", "shared.weight"))
    else:
        rows.append(Row("head.weight", "lm_head.weight"))
        rows += [Row("head.weight", "shared.weight")] if headed else []  # a head that was equal when it was written
    return Table("T5", tuple(rows), tuple(copies), ignored)


def _half(half: str, heads: int, gated: bool) -> list[Row]:
    causal = half == "decoder"
    ours, theirs = f"{half}.stack.blocks.{{}}.", f"{half}.block.{{}}.layer."
    rest, last = f"{ours}rest." if causal else ours, f"{theirs}{2 if causal else 1}."
    attention = lambda layer, names: tuple(f"{theirs}{layer}.{name}.weight" for name in names)
    rows = [
        Row(f"{half}.bias.table.weight", f"{half}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"),
        Row(f"{half}.norm.scale", f"{half}.final_layer_norm.weight"),
        Row(f"{ours}attention_norm.scale", f"{theirs}0.layer_norm.weight"),
        Row(f"{ours}attention.qkv.weight", attention("0.SelfAttention", "qkv"), qkv(heads)),
        Row(f"{ours}attention.out.weight", attention("0.SelfAttention", "o")),
    ]
    if causal:
        rows += [
            Row(f"{rest}attention_norm.scale", f"{theirs}1.layer_norm.weight"),
            Row(f"{rest}attention.q.weight", attention("1.EncDecAttention", "q")),
            Row(f"{rest}attention.kv.weight", attention("1.EncDecAttention", "kv"), interleaved(heads)),
            Row(f"{rest}attention.out.weight", attention("1.EncDecAttention", "o")),
        ]
    up = tuple(f"{last}DenseReluDense.{name}.weight" for name in (("wi_1", "wi_0") if gated else ("wi",)))
    return [
        *rows,
        Row(f"{rest}mlp_norm.scale", f"{last}layer_norm.weight"),
        Row(f"{rest}mlp.up.weight", up, GATED if gated else SAME),
        Row(f"{rest}mlp.down.weight", f"{last}DenseReluDense.wo.weight"),
    ]


def build(values: Mapping[str, Any]) -> tuple[Callable[[PRNGKeyArray], models.T5 | models.T5Encoder], Table]:
    """The model of a config, and its table."""
    architecture = (values.get("architectures") or ARCHITECTURES)[0]
    if architecture not in ARCHITECTURES:
        raise Unsupported(f"architectures must be one of {', '.join(ARCHITECTURES)}: got {architecture!r}")
    forward = values.get("feed_forward_proj", "relu")
    if forward not in FORWARD:
        raise Unsupported(f"feed_forward_proj must be one of {', '.join(FORWARD)}: got {forward!r}")
    activation, gated = FORWARD[forward]
    sizes = integers(values, SIZES)
    deep = values.get("num_decoder_layers")
    # Version 5 of transformers writes that every head is tied, and keeps what the file said as scale_decoder_outputs.
    untied = values.get("tie_word_embeddings") is False or values.get("scale_decoder_outputs") is False
    config = T5Config(
        **sizes,
        decoder_depth=None if deep is None else int(deep),
        activation=activation,
        gated=gated,
        tied=not untied,
        epsilon=float(values.get("layer_norm_epsilon", 1e-6)),
        dropout=float(values.get("dropout_rate", 0.1)),
    )
    vocab = int(values.get("vocab_size", 32128))
    decoder, headed = architecture != "T5EncoderModel", architecture != "T5Model"
    mapping = table(config.heads, gated=gated, tied=config.tied, decoder=decoder, headed=headed)
    kind = models.T5 if decoder else models.T5Encoder
    return lambda key: kind(vocab, config, key=key), mapping


def describe(model: Any) -> tuple[dict[str, Any], Table]:
    """Values of config.json, and the table.

    Raises:
        ValueError: the model is neither of the two, or its states are scaled before a head of its own, or not before a
            tied one.
    """
    if not isinstance(model, (models.T5, models.T5Encoder)):
        raise ValueError(f"model must be a T5 or a T5Encoder: got {type(model).__name__}")
    block, half = model.encoder.stack.blocks, model.encoder
    whole = model if isinstance(model, models.T5) else None
    tied, dim = whole is None or whole.head is None, model.embedding.dim
    if whole and whole.head_scale != (dim**-0.5 if tied else 1.0):
        raise ValueError(f"model must have a scale of its head if and only if it is tied: got {whole.head_scale}")
    gated = isinstance(block.mlp, GLU)
    mapping = table(block.attention.heads, gated=gated, tied=tied, decoder=whole is not None)
    require_parts(model, mapping)
    named = {(activation, gates): name for name, (activation, gates) in reversed(FORWARD.items())}
    if (block.mlp.activation.name, gated) not in named:
        raise ValueError(f"activation must be one of {', '.join(FORWARD)}: got {block.mlp.activation.name}")
    config = {
        "model_type": "t5",
        "architectures": [ARCHITECTURES[0] if whole else ARCHITECTURES[2]],
        "vocab_size": model.vocab,
        "d_model": dim,
        "num_layers": half.stack.depth,
        "num_decoder_layers": whole.decoder.stack.depth if whole else half.stack.depth,
        "num_heads": block.attention.heads,
        "d_kv": block.attention.head_dim,
        "d_ff": block.mlp.down.in_dim,
        "n_positions": whole.context if whole else SIZES["context"][1],
        **_numbers(half),
        "feed_forward_proj": named[block.mlp.activation.name, gated],
        "tie_word_embeddings": tied,
        "is_encoder_decoder": True,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "decoder_start_token_id": 0,
        "torch_dtype": str(model.embedding.weight.dtype),
    }
    return config, mapping


def _numbers(half: models.T5Half) -> dict[str, Any]:
    return {
        "relative_attention_num_buckets": half.bias.table.vocab,
        "relative_attention_max_distance": half.bias.max_distance,
        "layer_norm_epsilon": half.norm.epsilon,
        "dropout_rate": half.dropout.rate,
    }


T5 = Family("T5", ("t5",), build, describe, translated)
from_pretrained, to_pretrained = T5.from_pretrained, T5.to_pretrained

__all__ = ["from_pretrained", "to_pretrained"]
