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
from jax.typing import DTypeLike

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
RATES = {"dropout": "resid_pdrop", "embedding_dropout": "embd_pdrop", "attention_dropout": "attn_pdrop"}
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


def from_pretrained(folder: str | Path, dtype: DTypeLike | None = None) -> GPT:
    """The model of a folder with config.json and safetensors, such as a snapshot of `openai-community/gpt2`.

    The logits equal the published model's. The dropout rates are the config's, for further training; decoding is
    without.

    Args:
        folder: of the files.
        dtype: of the parameters; by default each has the one that it is stored in, such as bfloat16.

    Raises:
        ValueError: a file is missing or damaged, the config is of another architecture, or an array is missing, of
            another shape, or not of the model.
    """
    model, arrays = read(Path(folder))
    leaves = [jnp.asarray(array, dtype) for array in arrays.values()]
    return eqx.tree_at(lambda model: [_get(model, name) for name in arrays], model, leaves)


def read(folder: Path) -> tuple[GPT, dict[str, np.ndarray]]:
    """The model of a folder with shapes in place of arrays, and its arrays on the host by their paths; see
    `from_pretrained`.
    """
    config, vocab = _config(folder, files.read_config(folder, "gpt2"))
    arrays = {
        name.removeprefix(PREFIX): array
        for name, array in files.read_arrays(folder).items()
        if not name.endswith(BUFFERS)
    }
    model = eqx.filter_eval_shape(lambda key: GPT(vocab, config, key=key), jr.key(0))
    head = arrays.pop("lm_head.weight", None)
    if head is not None and not np.array_equal(head, arrays.setdefault("wte.weight", head)):
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
    return model, found


def to_pretrained(model: GPT, folder: str | Path) -> None:
    """Writes config.json and model.safetensors, which `transformers.GPT2LMHeadModel.from_pretrained` reads. Each array
    is written in its own type, and each file whole or not at all.

    Raises:
        OSError: the disk refuses; older files are untouched.
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
    arrays = {PREFIX + theirs: np.asarray(_get(model, ours)) for ours, theirs in ENDS.items()}
    for ours, theirs in BLOCK.items():
        for layer, array in enumerate(np.asarray(_get(blocks, ours))):
            arrays[PREFIX + theirs.format(layer)] = _joined(ours, array, attention.heads).T
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
        "resid_pdrop": attention.dropout.rate,
        "embd_pdrop": model.dropout.rate,
        "attn_pdrop": attention.probs_dropout.rate,
        "torch_dtype": str(model.embedding.weight.dtype),
        **{name: value for name, (value, _) in FIXED.items()},
    }
    files.write(Path(folder), config, arrays)


def _config(folder: Path, values: dict[str, Any]) -> tuple[GPTConfig, int]:
    where = folder / files.CONFIG
    for name, (wanted, default) in FIXED.items():
        if (got := values.get(name, default)) != wanted:
            raise ValueError(f"{where}: {name} must be {wanted!r}, as GPT-2's: got {got!r}")
    try:
        sizes: dict[str, Any] = {
            ours: int(values[theirs]) for ours, theirs in (("dim", "n_embd"), ("depth", "n_layer"), ("heads", "n_head"))
        }
        context, vocab = int(values.get("n_positions", 1024)), int(values["vocab_size"])
        hidden = None if values.get("n_inner") is None else int(values["n_inner"])
        rates: dict[str, Any] = {ours: float(values.get(theirs, 0.1)) for ours, theirs in RATES.items()}
        return GPTConfig(**sizes, **rates, hidden_dim=hidden, context=context), vocab
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
