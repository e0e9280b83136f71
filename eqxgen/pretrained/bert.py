"""BERT's published weights (Devlin et al. 2018) in Hugging Face's layout, such as a snapshot of
`google-bert/bert-base-uncased`.

The architecture that config.json names gives the model: `BERT`, `BERTMaskedLM` or `BERTClassifier`. Names with and
without the prefix `bert.` are read, and norms as gamma and beta, as old files have them.
"""

from collections.abc import Callable, Mapping
from typing import Any

from jaxtyping import PRNGKeyArray

from eqxgen.configs import BERTConfig
from eqxgen.models import bert as models
from eqxgen.pretrained.encoders import activation, labels, published_activation, published_labels
from eqxgen.pretrained.family import Family, Unsupported, integers, require_fixed, require_parts
from eqxgen.pretrained.outputs.texts import masked
from eqxgen.pretrained.table import Row, Table, Tied
from eqxgen.pretrained.transforms import qkv

SIZES = {
    "dim": ("hidden_size", 768),
    "depth": ("num_hidden_layers", 12),
    "heads": ("num_attention_heads", 12),
    "hidden_dim": ("intermediate_size", 3072),
    "context": ("max_position_embeddings", 512),
    "types": ("type_vocab_size", 2),
}
RATES = {"dropout": "hidden_dropout_prob", "attention_dropout": "attention_probs_dropout_prob"}
ARCHITECTURES = {
    "BertModel": models.BERT,
    "BertForMaskedLM": models.BERTMaskedLM,
    "BertForPreTraining": models.BERTMaskedLM,
    "BertForSequenceClassification": models.BERTClassifier,
}
# Options that `BERT` has no field for: name in config.json, the one supported value, the published default.
FIXED = {
    "position_embedding_type": ("absolute", "absolute"),
    "is_decoder": (False, False),
    "add_cross_attention": (False, False),
}
DECODER = "cls.predictions.decoder."
EMBEDDING = "bert.embeddings.word_embeddings.weight"


def table(kind: type, heads: int, tied: bool = True) -> Table:
    """Names of `transformers.BertModel`, `BertForMaskedLM` and `BertForSequenceClassification`."""
    encoder = "" if kind is models.BERT else "bert."
    rows = [Row(f"{encoder}{path}", tuple(encoder + n for n in names), how) for path, names, how in _encoder(heads)]
    ignored = {"embeddings.position_ids": "positions in order"}
    copies: tuple[Tied, ...] = ()
    if kind is not models.BERTMaskedLM:
        rows += [Row(f"{encoder}pooler.{part}", f"{encoder}pooler.dense.{part}") for part in ("weight", "bias")]
        ignored["cls.*"] = "heads of the pretraining"
    if kind is models.BERT:
        ignored["classifier.*"] = "head of a classifier"
    elif kind is models.BERTClassifier:
        rows += [Row(f"head.{part}", f"classifier.{part}") for part in ("weight", "bias")]
    else:
        rows += [Row(path, f"cls.predictions.{name}") for path, name in _HEAD]
        if tied:
            copies = (Tied(f"{DECODER}bias", "cls.predictions.bias"), Tied(f"{DECODER}weight", EMBEDDING))
        else:
            rows += [Row("head.weight", f"{DECODER}weight"), Row("bias", f"{DECODER}bias")]
            copies = (Tied("cls.predictions.bias", f"{DECODER}bias", written=True, equal=False),)
        rows.append(Row("bias", "cls.predictions.bias"))
        ignored |= {"cls.seq_relationship.*": "head of the next sentence", "pooler.*": "vector of the next sentence"}
    renames = {".gamma": ".weight", ".beta": ".bias"}
    return Table("BERT", tuple(rows), copies, ignored, prefixes=("bert.",), renames=renames)


_HEAD = (
    ("transform.weight", "transform.dense.weight"),
    ("transform.bias", "transform.dense.bias"),
    ("norm.scale", "transform.LayerNorm.weight"),
    ("norm.bias", "transform.LayerNorm.bias"),
)


def _encoder(heads: int) -> list[Row]:
    ours, theirs = "stack.blocks.{}.", "encoder.layer.{}."
    self = theirs + "attention.self."
    rows = [
        Row("embedding.weight", ("embeddings.word_embeddings.weight",)),
        Row("positions", ("embeddings.position_embeddings.weight",)),
        Row("types.weight", ("embeddings.token_type_embeddings.weight",)),
        Row("norm.scale", ("embeddings.LayerNorm.weight",)),
        Row("norm.bias", ("embeddings.LayerNorm.bias",)),
    ]
    for part in ("weight", "bias"):
        names = tuple(f"{self}{name}.{part}" for name in ("query", "key", "value"))
        rows.append(Row(f"{ours}attention.qkv.{part}", names, qkv(heads)))
        scale = "scale" if part == "weight" else "bias"
        for path, name in (
            (f"attention.out.{part}", "attention.output.dense"),
            (f"attention_norm.{scale}", "attention.output.LayerNorm"),
            (f"mlp.up.{part}", "intermediate.dense"),
            (f"mlp.down.{part}", "output.dense"),
            (f"mlp_norm.{scale}", "output.LayerNorm"),
        ):
            rows.append(Row(ours + path, (f"{theirs}{name}.{part}",)))
    return rows


def build(values: Mapping[str, Any]) -> tuple[Callable[[PRNGKeyArray], Any], Table]:
    """The model of a config, and its table."""
    require_fixed(values, FIXED, "BERT")
    architecture = (values.get("architectures") or ["BertModel"])[0]
    if (kind := ARCHITECTURES.get(architecture)) is None:
        raise Unsupported(f"architectures must be one of {', '.join(ARCHITECTURES)}: got {architecture!r}")
    rates: dict[str, Any] = {ours: float(values.get(theirs, 0.1)) for ours, theirs in RATES.items()}
    last = values.get("classifier_dropout")
    config = BERTConfig(
        **integers(values, SIZES),
        **rates,
        activation=activation(values, "gelu"),
        epsilon=float(values.get("layer_norm_eps", 1e-12)),
        head_dropout=None if last is None else float(last),
        tied=bool(values.get("tie_word_embeddings", True)),
    )
    vocab = int(values.get("vocab_size", 30522))
    mapping = table(kind, config.heads, config.tied)
    if kind is models.BERTClassifier:
        return lambda key: models.BERTClassifier(vocab, labels(values), config, key=key), mapping
    return lambda key: kind(vocab, config, key=key), mapping


def describe(model: Any) -> tuple[dict[str, Any], Table]:
    """Values of config.json, and the table.

    Raises:
        ValueError: the model is none of the three.
    """
    kinds = {
        models.BERT: "BertModel",
        models.BERTMaskedLM: "BertForMaskedLM",
        models.BERTClassifier: "BertForSequenceClassification",
    }
    if type(model) not in kinds:
        raise ValueError(f"model must be a BERT, BERTMaskedLM or BERTClassifier: got {type(model).__name__}")
    bert = model if isinstance(model, models.BERT) else model.bert
    if bert.pooling != "first" and bert.pooler is not None:
        raise ValueError(f"pooling must be first, as published models': got {bert.pooling}")
    block: Any = bert.stack.blocks
    tied = not isinstance(model, models.BERTMaskedLM) or model.head is None
    mapping = table(type(model), block.attention.heads, tied)
    require_parts(model, mapping)
    depth, hidden, dim = block.mlp.up.weight.shape
    config = {
        "model_type": "bert",
        "architectures": [kinds[type(model)]],
        "vocab_size": bert.vocab,
        "hidden_size": dim,
        "num_hidden_layers": depth,
        "num_attention_heads": block.attention.heads,
        "intermediate_size": hidden,
        "max_position_embeddings": bert.context,
        "type_vocab_size": bert.types.vocab,
        "hidden_act": published_activation(block.mlp.activation.name),
        "layer_norm_eps": bert.norm.epsilon,
        "hidden_dropout_prob": bert.dropout.rate,
        "attention_probs_dropout_prob": block.attention.probs_dropout.rate,
        "tie_word_embeddings": tied,
        "torch_dtype": str(bert.embedding.weight.dtype),
        **{name: value for name, (value, _) in FIXED.items()},
    }
    if isinstance(model, models.BERTClassifier):
        config["classifier_dropout"] = model.dropout.rate
        config |= published_labels(model.labels)
    return config, mapping


BERT = Family("BERT", ("bert",), build, describe, masked)
from_pretrained, to_pretrained = BERT.from_pretrained, BERT.to_pretrained

__all__ = ["from_pretrained", "to_pretrained"]
