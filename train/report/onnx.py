"""The forward pass of a run's model as a file of ONNX, with the arrays that it takes and gives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np

from eqxgen.onnx_export import to_onnx

from .._errors import UserError
from ..engine.recipes import Finished

Arrays = dict[str, np.ndarray]


class Forward(NamedTuple):
    """A model's forward pass.

    Attributes:
        example: (facts) -> its arguments by name, of the shapes that the file will have.
        results: what it gives, for the line that is printed.
        call: (model in inference, arguments in order) -> arrays.
    """

    example: Callable[[Any], Arrays]
    results: str
    call: Callable[..., Any] = lambda model, *given: model(*given)


def _image(facts: Any) -> Arrays:
    """A smooth pattern in [-1, 1]."""
    count = int(np.prod(facts.shape))
    return {"image": np.sin(np.arange(count) * 0.37).reshape(facts.shape).astype(np.float32)}


def _text(facts: Any) -> Arrays:
    return {"ids": (np.arange(facts.context) % facts.vocab).astype(np.int32)}


def _tokens(facts: Any) -> Arrays:
    label = np.asarray(facts.classes - 1, np.int32)
    return {"ids": (np.arange(facts.tokens) % facts.codes).astype(np.int32), "label": label}


_first = lambda model, *given: model(*given)[0]
FORWARDS = {
    "gpt": Forward(_text, "logits of the next token"),
    "rnn": Forward(_text, "logits of the next token"),
    "classify": Forward(_image, "logits of the classes"),
    "segment": Forward(_image, "logits of the classes of each pixel"),
    "maskgit": Forward(_tokens, "logits of the tokens"),
    "mage": Forward(_tokens, "logits of the tokens"),
    "ar": Forward(_tokens, "logits of the tokens"),
    "vae": Forward(_image, "the image by the posterior's mean", _first),
    "klvae": Forward(_image, "the image by the posterior's mean", _first),
    "vqgan": Forward(_image, "the image by its codes", _first),
}
"""By recipe."""


def write_onnx(run: Finished, path: Path) -> list[str]:
    """Writes `path`; gives lines on its arguments, its results and the difference from JAX.

    Raises:
        UserError: the run's model is of a recipe without a row here, or cannot be read.
        ValueError: the model cannot be written as ONNX, see `eqxgen.onnx_export.to_onnx`.
        ModuleNotFoundError: jax2onnx is not installed.
    """
    name = run.recipe.name
    if name not in FORWARDS:
        raise UserError(
            f"--as onnx: must have a run of train.{', train.'.join(FORWARDS)}: got one of train.{name}; write your own "
            "function by eqxgen.onnx_export.to_onnx"
        )
    model, forward = run.model(), FORWARDS[name]
    if getattr(run.facts, "scales", ()) and name == "ar":
        from ..tasks.tokenizers import tokenizer_of_run

        tokenizer: Any = tokenizer_of_run(run.folder, run.config.tokenizer, run.facts)
        model = model.reading(tokenizer.quantizer)
    model, example = eqx.nn.inference_mode(model), forward.example(run.facts)
    found = to_onnx(lambda *given: forward.call(model, *given), *example.values(), path=path)
    shown = [
        f"{name} {array.dtype}{list(array.shape)} as {own}" for own, (name, array) in zip(found.inputs, example.items())
    ]
    nodes = sum(found.operators.values())
    apart = (
        "not compared: onnxruntime is not installed"
        if np.isnan(found.error)
        else f"onnxruntime differs by {found.error:.1e}"
    )
    return [f"takes {', '.join(shown)}; gives {forward.results}", f"{nodes:,} nodes; {apart} of the largest entry"]
