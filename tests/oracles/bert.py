"""BERT of the library transformers: states, pooled vectors and both heads, with padding and two kinds of token."""

import numpy as np

from tests.oracles._drawn import lengths, redrawn

SIZES = {
    "vocab_size": 31,
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 17,
}
# Class, options, and the output that is kept.
VARIANTS = {
    "encoder": ("BertModel", {"type_vocab_size": 3, "layer_norm_eps": 1e-5}, "last_hidden_state"),
    "pooled": ("BertModel", {"hidden_act": "relu"}, "pooler_output"),
    "masked": ("BertForMaskedLM", {}, "logits"),
    "masked, untied": ("BertForMaskedLM", {"tie_word_embeddings": False, "hidden_act": "gelu_new"}, "logits"),
    "pretraining": ("BertForPreTraining", {}, "prediction_logits"),
    "classifier": ("BertForSequenceClassification", {"num_labels": 5}, "logits"),
}


def make(variant):
    """The published model of a variant, its config.json and the shapes of its file."""
    import transformers

    name, options, _ = VARIANTS[variant]
    return redrawn(getattr(transformers, name)(transformers.BertConfig(**SIZES, **options)))


def cases():
    import torch

    ids, mask = lengths(0, SIZES["vocab_size"], 2, 7, 4)
    types = np.random.default_rng(1).integers(0, 2, ids.shape)
    found = {}
    for variant, (_, _, output) in VARIANTS.items():
        model, files = make(variant)
        inputs = {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}
        with torch.no_grad():
            kept = model(**{name: torch.tensor(array) for name, array in inputs.items()})[output].numpy()
        found[f"{variant}/files"] = files
        found[f"{variant}/run"] = {"ids": ids, "types": types, "mask": mask.astype(bool), "output": kept}
    return found
