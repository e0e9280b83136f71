"""Samples of a trained MaskGIT."""

from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from eqxgen.models.maskgit import MaskGIT, generate

from .._errors import UsageError
from ..evaluators.examples import Examples


@runtime_checkable
class Decode(Protocol):
    """How to sample: `train.maskgit.DecodeConfig`, or what `train.sample` was asked for."""

    @property
    def steps(self) -> int: ...
    @property
    def guidance(self) -> float: ...
    @property
    def choice_temperature(self) -> float: ...
    @property
    def temperature(self) -> float: ...
    @property
    def schedule(self) -> str: ...


def check_steps(steps: int, tokens: int, flag: str) -> None:
    """Raises `UsageError` unless there are at most as many guesses as tokens."""
    if not 1 <= steps <= tokens:
        raise UsageError(f"{flag} must be from 1 to the number of tokens, {tokens}: got {steps}")


class Draw(eqx.Module):
    """An image in [-1, 1] of a label, for `train.evaluators.stream.Stream`.

    Its arguments are (model, tokenizer, key) and an example with `label`. Image i depends on the key, i and its label
    alone.
    """

    options: tuple[tuple[str, Any], ...] = eqx.field(static=True)

    def __init__(self, decode: Decode):
        names = ("steps", "guidance", "choice_temperature", "temperature", "schedule")
        self.options = tuple((name, getattr(decode, name)) for name in names)

    def __call__(
        self, tree: tuple[MaskGIT, Any, PRNGKeyArray], example: dict[str, Array]
    ) -> Float[Array, "height width channels"]:
        model, tokenizer, key = tree
        ids = generate(model, example["label"], key=jr.fold_in(key, example["index"]), **dict(self.options))
        return tokenizer.decode(ids)


def labelled(labels: Int[np.ndarray, " n"]) -> Examples:
    """Examples of which each is a label."""
    return Examples.of(250, label=labels.astype(np.int32))
