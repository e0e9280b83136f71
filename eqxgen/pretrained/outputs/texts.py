"""Models of texts: logits or states of one sequence of drawn tokens."""

from typing import Any

import jax.numpy as jnp
import numpy as np


def causal(model: Any, original: Any) -> dict[str, tuple[Any, Any]]:
    """Logits of a decoder."""
    ids = _drawn(model.vocab, min(model.context, 64))
    return {"logits": (model(jnp.asarray(ids), inference=True), _theirs(original, input_ids=ids)["logits"][0])}


def masked(model: Any, original: Any) -> dict[str, tuple[Any, Any]]:
    """Logits of a BERT with a head, or states and the pooled vector of one without, where the end is padding."""
    bert = getattr(model, "bert", model)
    ids, mask = _drawn(bert.vocab, min(bert.context, 24)), np.arange(min(bert.context, 24)) < 17
    types = _drawn(bert.types.vocab, len(ids))
    theirs = _theirs(original, input_ids=ids, token_type_ids=types, attention_mask=mask.astype(int))
    ours = model(jnp.asarray(ids), jnp.asarray(types), mask=jnp.asarray(mask), inference=True)
    name = next(name for name in ("logits", "prediction_logits", "last_hidden_state") if name in theirs)
    real = slice(None) if ours.ndim == 1 else mask
    pairs = {name.replace("_", " "): (ours[real], theirs[name][0][real])}
    return pairs if model is not bert else pairs | {"pooled vector": (bert.pooled(ours), theirs["pooler_output"][0])}


def translated(model: Any, original: Any) -> dict[str, tuple[Any, Any]]:
    """Logits of a T5, or states of its encoder alone, of a source whose end is padding."""
    source, target = _drawn(model.vocab, 29), _drawn(model.vocab, 23)
    mask = np.arange(len(source)) < 21
    given = {"input_ids": source, "attention_mask": mask.astype(int)}
    if hasattr(model, "decoder"):
        ours = model(jnp.asarray(source), jnp.asarray(target), mask=jnp.asarray(mask), inference=True)
        return {"logits": (ours, _theirs(original, **given, decoder_input_ids=target)["logits"][0])}
    ours = model(jnp.asarray(source), mask=jnp.asarray(mask), inference=True)
    return {"states": (ours[mask], _theirs(original, **given)["last_hidden_state"][0][mask])}


def _drawn(size: int, length: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, size, length)


def _theirs(original: Any, **inputs: np.ndarray) -> dict[str, np.ndarray]:
    import torch

    with torch.no_grad():
        found = original(**{name: torch.from_numpy(array)[None] for name, array in inputs.items()})
    return {name: value.float().numpy() for name, value in found.items() if isinstance(value, torch.Tensor)}
