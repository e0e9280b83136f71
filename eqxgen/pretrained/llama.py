"""LLaMA's published weights (Touvron et al. 2023; 3.1: Grattafiori et al. 2024) in Hugging Face's layout, such as a
snapshot of `meta-llama/Llama-3.1-8B`, as a `GPT`.

Rotary positions are read as hub files name them (`rope_theta`, `rope_scaling`) and as version 5 of transformers writes
them (`rope_parameters`): of the kinds default, linear and llama3. A residual dropout rate, which the published model is
without, is not written.
"""

from collections.abc import Callable, Mapping
from typing import Any

from jaxtyping import PRNGKeyArray

from eqxgen.configs import GPTConfig
from eqxgen.models.gpt import GPT
from eqxgen.nn import GLU, RMSNorm, RoPE
from eqxgen.pretrained.family import Family, Unsupported, integers, require_parts, require_same
from eqxgen.pretrained.outputs.texts import causal
from eqxgen.pretrained.table import Row, Table, Tied
from eqxgen.pretrained.transforms import GATED, SAME, qkv

SIZES = {
    "dim": ("hidden_size", 4096),
    "depth": ("num_hidden_layers", 32),
    "heads": ("num_attention_heads", 32),
    "hidden_dim": ("intermediate_size", 11008),
    "context": ("max_position_embeddings", 2048),
}
ACTIVATIONS = ("silu", "swish")
KINDS = ("default", "linear", "llama3")


def table(heads: int, kv_heads: int, *, tied: bool, attention_bias: bool, mlp_bias: bool) -> Table:
    """Names of `transformers.LlamaForCausalLM`."""
    ours, theirs = "stack.blocks.{}.", "model.layers.{}."
    rows = [Row("embedding.weight", "model.embed_tokens.weight"), Row("norm.scale", "model.norm.weight")]
    rows += [
        Row(f"{ours}attention_norm.scale", f"{theirs}input_layernorm.weight"),
        Row(f"{ours}mlp_norm.scale", f"{theirs}post_attention_layernorm.weight"),
    ]
    layers = (
        ("attention.qkv", "self_attn.", ("q_proj", "k_proj", "v_proj"), qkv(heads, kv_heads)),
        ("attention.out", "self_attn.", ("o_proj",), SAME),
        ("mlp.up", "mlp.", ("up_proj", "gate_proj"), GATED),
        ("mlp.down", "mlp.", ("down_proj",), SAME),
    )
    for path, start, names, how in layers:
        for part in ("weight", "bias") if (attention_bias if start == "self_attn." else mlp_bias) else ("weight",):
            rows.append(Row(f"{ours}{path}.{part}", tuple(f"{theirs}{start}{name}.{part}" for name in names), how))
    copies = (Tied("lm_head.weight", "model.embed_tokens.weight"),) if tied else ()
    rows += [] if tied else [Row("head.weight", "lm_head.weight")]
    ignored = {"layers.*.self_attn.rotary_emb.inv_freq": "rates of the rotary positions"}
    return Table("LLaMA", tuple(rows), copies, ignored, prefixes=("model.",))


def build(values: Mapping[str, Any]) -> tuple[Callable[[PRNGKeyArray], GPT], Table]:
    """The model of a config, and its table."""
    if (activation := values.get("hidden_act", "silu")) not in ACTIVATIONS:
        raise Unsupported(f"hidden_act must be 'silu', as LLaMA's: got {activation!r}")
    biases = {name: bool(values.get(name, False)) for name in ("attention_bias", "mlp_bias")}
    sizes = integers(values, SIZES)
    known = {name: values.get(name) for name in ("num_key_value_heads", "head_dim")}
    whole = {name: None if value is None else int(value) for name, value in known.items()}
    if whole["head_dim"] == sizes["dim"] // sizes["heads"] and sizes["dim"] % sizes["heads"] == 0:
        whole["head_dim"] = None
    config = GPTConfig(
        **sizes,
        **_positions(values, sizes["context"]),
        kv_heads=whole["num_key_value_heads"],
        head_dim=whole["head_dim"],
        attention_dropout=float(values.get("attention_dropout") or 0.0),
        bias=biases["mlp_bias"],
        attention_bias=biases["attention_bias"],
        tied=bool(values.get("tie_word_embeddings", False)),
        positions="rotary",
        norm="rms",
        epsilon=float(values.get("rms_norm_eps", 1e-6)),
        mlp="swiglu",
    )
    vocab = int(values.get("vocab_size", 32000))
    mapping = table(config.heads, config.kv_heads or config.heads, tied=config.tied, **biases)
    return lambda key: GPT(vocab, config, key=key), mapping


def _positions(values: Mapping[str, Any], context: int) -> dict[str, Any]:
    """Rotary positions of a config, of either spelling."""
    scaling = {**(values.get("rope_scaling") or {}), **(values.get("rope_parameters") or {})}
    found: dict[str, Any] = {"rope_base": float(scaling.get("rope_theta", values.get("rope_theta", 10_000.0)))}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in KINDS:
        raise Unsupported(f"rope_type must be one of {', '.join(KINDS)}: got {kind!r}")
    if (part := scaling.get("partial_rotary_factor", values.get("partial_rotary_factor", 1.0))) != 1:
        raise Unsupported(f"partial_rotary_factor must be 1, as LLaMA's: got {part!r}")
    if kind == "default":
        return found
    found["rope_factor"] = float(scaling["factor"])
    if kind == "llama3":
        found["rope_original"] = int(scaling.get("original_max_position_embeddings") or context)
        found |= {"rope_low": float(scaling["low_freq_factor"]), "rope_high": float(scaling["high_freq_factor"])}
    return found


def describe(model: GPT) -> tuple[dict[str, Any], Table]:
    """Values of config.json, and the table.

    Raises:
        ValueError: the model is not of LLaMA's architecture: rotary positions, RMS norms, gated MLPs.
    """
    attention, mlp = model.stack.blocks.attention, model.stack.blocks.mlp
    rope: Any = getattr(attention, "rope", None)
    same = isinstance(rope, RoPE) and isinstance(mlp, GLU) and isinstance(model.norm, RMSNorm)
    require_same(same and model.positions is None, "LLaMA", "rotary positions, RMS norms, gated MLPs")
    swish = mlp.activation.name in ("swish", "silu") and not rope.interleaved
    require_same(swish and attention.q_norm is None, "LLaMA", "SwiGLU, queries without norm, rotated halves")
    biases = {"attention_bias": attention.out.bias is not None, "mlp_bias": mlp.down.bias is not None}
    mapping = table(attention.heads, attention.kv_heads, tied=model.head is None, **biases)
    require_parts(model, mapping)
    depth, dim, hidden = mlp.down.weight.shape
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": model.vocab,
        "hidden_size": dim,
        "num_hidden_layers": depth,
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.kv_heads,
        "head_dim": attention.head_dim,
        "intermediate_size": hidden,
        "max_position_embeddings": model.context,
        "rms_norm_eps": model.norm.epsilon,
        "rope_theta": rope.base,
        "rope_scaling": _scaling(rope),
        "attention_dropout": attention.probs_dropout.rate,
        **biases,
        "tie_word_embeddings": model.head is None,
        "hidden_act": ACTIVATIONS[0],
        "torch_dtype": str(model.embedding.weight.dtype),
    }
    return config, mapping


def _scaling(rope: RoPE) -> dict[str, Any] | None:
    if (scaling := rope.scaling) is None:
        return None
    if scaling.original is None:
        return {"rope_type": "linear", "factor": scaling.factor}
    return {
        "rope_type": "llama3",
        "factor": scaling.factor,
        "low_freq_factor": scaling.low,
        "high_freq_factor": scaling.high,
        "original_max_position_embeddings": scaling.original,
    }


LLAMA = Family("LLaMA", ("llama",), build, describe, causal)
from_pretrained, to_pretrained = LLAMA.from_pretrained, LLAMA.to_pretrained

__all__ = ["from_pretrained", "to_pretrained"]
