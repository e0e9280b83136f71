"""GPT-2's published weights (Radford et al. 2019) in Hugging Face's layout: `model = from_pretrained(folder)`, and
back.
"""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from einops import rearrange

from eqxgen.configs import GPTConfig
from eqxgen.models.gpt import EPSILON, GPT
from eqxgen.pretrained import files

# Parameter of `GPT` -> published name; {} is the number of the block. Published matrices are (in, out): transposed.
BLOCK = {
    "attention_norm.scale": "h.{}.ln_1.weight",
    "attention_norm.bias": "h.{}.ln_1.bias",
    "attention.qkv.weight": "h.{}.attn.c_attn.weight",
    "attention.qkv.bias": "h.{}.attn.c_attn.bias",
    "attention.out.weight": "h.{}.attn.c_proj.weight",
    "attention.out.bias": "h.{}.attn.c_proj.bias",
    "mlp_norm.scale": "h.{}.ln_2.weight",
    "mlp_norm.bias": "h.{}.ln_2.bias",
    "mlp.up.weight": "h.{}.mlp.c_fc.weight",
    "mlp.up.bias": "h.{}.mlp.c_fc.bias",
    "mlp.down.weight": "h.{}.mlp.c_proj.weight",
    "mlp.down.bias": "h.{}.mlp.c_proj.bias",
}
ENDS = {
    "embedding.weight": "wte.weight",
    "positions": "wpe.weight",
    "norm.scale": "ln_f.weight",
    "norm.bias": "ln_f.bias",
}
PREFIX = "transformer."
BUFFERS = (".attn.bias", ".attn.masked_bias")  # causal masks, in old files

# Options that `GPT` has no field for: name in config.json, the one supported value, the published default.
FIXED = {
    "activation_function": ("gelu_new", "gelu_new"),
    "layer_norm_epsilon": (EPSILON, 1e-5),
    "scale_attn_weights": (True, True),
    "scale_attn_by_inverse_layer_idx": (False, False),
    "tie_word_embeddings": (True, True),
    "add_cross_attention": (False, False),
}


def from_pretrained(folder: str | Path) -> GPT:
    """The model of a folder with config.json and safetensors, such as a snapshot of `openai-community/gpt2`.

    The logits equal the published model's. Dropout is the config's, for further training; decoding is without.

    Raises:
        ValueError: a file is missing or damaged, the config is of another architecture, or an array is missing, of
            another shape, or not of the model.
    """
    folder = Path(folder)
    values = files.read_config(folder, "gpt2")
    config, vocab = _config(folder, values)
    arrays = {
        name.removeprefix(PREFIX): array
        for name, array in files.read_arrays(folder).items()
        if not name.endswith(BUFFERS)
    }
    model = eqx.filter_eval_shape(lambda key: GPT(vocab, config, key=key), jr.key(0))
    head = arrays.pop("lm_head.weight", None)
    if head is not None and "wte.weight" in arrays and not np.array_equal(head, arrays["wte.weight"]):
        raise ValueError(f"{folder}: lm_head.weight must equal wte.weight, as the config ties them: they differ")
    found: dict[str, np.ndarray] = {}
    for ours, theirs in ENDS.items():
        found[ours] = files.take(arrays, theirs, _get(model, ours).shape, folder)
    for ours, theirs in BLOCK.items():
        depth, *shape = _get(model.stack.blocks, ours).shape
        layers = [files.take(arrays, theirs.format(layer), tuple(reversed(shape)), folder) for layer in range(depth)]
        found[f"stack.blocks.{ours}"] = np.stack([_split(ours, layer.T, config.heads) for layer in layers])
    if arrays:
        raise ValueError(f"{folder}: array {sorted(arrays)[0]} is not of a GPT-2 of this config")
    leaves = [jnp.asarray(array) for array in found.values()]
    return eqx.tree_at(lambda model: [_get(model, name) for name in found], model, leaves)


def to_pretrained(model: GPT, folder: str | Path) -> None:
    """Writes config.json and model.safetensors, which `transformers.GPT2LMHeadModel.from_pretrained` reads.

    Raises:
        ValueError: the model is not of GPT-2's architecture: learned positions, tied head, biases, GELU in its tanh
            form, a key head for each query head.
    """
    blocks = model.stack.blocks
    for ours in [*ENDS, *(f"stack.blocks.{name}" for name in BLOCK)]:
        if _get(model, ours, None) is None:
            raise ValueError(f"model must be of GPT-2's architecture to be written as one: it has no {ours}")
    attention, activation = blocks.attention, blocks.mlp.activation.name
    same = (
        attention.kv_heads == attention.heads
        and attention.rope is None
        and model.head is None
        and activation == "gelu_tanh"
    )
    if not same:
        parts = "learned positions, a tied head, as many key heads as heads, and GELU's tanh form"
        raise ValueError(f"model must be of GPT-2's architecture to be written as one ({parts}): got another")
    depth, hidden, dim = blocks.mlp.up.weight.shape
    arrays = {PREFIX + theirs: np.asarray(_get(model, ours), np.float32) for ours, theirs in ENDS.items()}
    for ours, theirs in BLOCK.items():
        for layer, array in enumerate(np.asarray(_get(blocks, ours), np.float32)):
            arrays[PREFIX + theirs.format(layer)] = _joined(ours, array, attention.heads).T
    rate = model.dropout.rate
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
        "resid_pdrop": rate,
        "embd_pdrop": rate,
        "attn_pdrop": rate,
        **{name: value for name, (value, _) in FIXED.items()},
    }
    files.write(Path(folder), config, arrays)


def _config(folder: Path, values: dict[str, Any]) -> tuple[GPTConfig, int]:
    where = folder / files.CONFIG
    for name, (wanted, default) in FIXED.items():
        if (got := values.get(name, default)) != wanted:
            raise ValueError(f"{where}: {name} must be {wanted!r}, as GPT-2's: got {got!r}")
    rates = {values.get(name, 0.1) for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop")}
    if len(rates) != 1:
        raise ValueError(f"{where}: resid_pdrop, embd_pdrop and attn_pdrop must be one rate: got {sorted(rates)}")
    try:
        sizes: dict[str, Any] = {
            ours: int(values[theirs]) for ours, theirs in (("dim", "n_embd"), ("depth", "n_layer"), ("heads", "n_head"))
        }
        context, vocab = int(values.get("n_positions", 1024)), int(values["vocab_size"])
        hidden = None if values.get("n_inner") is None else int(values["n_inner"])
        return GPTConfig(**sizes, hidden_dim=hidden, context=context, dropout=float(rates.pop())), vocab
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{where}: is not the config of a GPT-2: {type(error).__name__}: {error}") from None


def _get(tree: Any, path: str, *default: Any) -> Any:
    for name in path.split("."):
        tree = getattr(tree, name, *default)
    return tree


def _split(name: str, array: Any, heads: int) -> Any:
    """Published rows (all queries, all keys, all values) in the order of `GPT`: the three of each head together."""
    return (
        rearrange(array, "(parts heads d) ... -> (heads parts d) ...", parts=3, heads=heads) if "qkv" in name else array
    )


def _joined(name: str, array: Any, heads: int) -> Any:
    return (
        rearrange(array, "(heads parts d) ... -> (parts heads d) ...", parts=3, heads=heads) if "qkv" in name else array
    )


__all__ = ["from_pretrained", "to_pretrained"]
