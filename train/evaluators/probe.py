"""A linear probe: a classifier of frozen features, which shows what they separate."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jaxtyping import Array, Float, Int, PyTree

from ..config.evals import PROBE
from ..parallel.processes import from_first
from .base import Evaluator
from .examples import Examples
from .stream import Function, Stream

DECAY = 1e-4
"""Weight of half the squared weights beside the mean cross-entropy."""
UPDATES = 500
"""Most iterations of L-BFGS."""


def probe(features: Function, train: Examples, test: Examples, classes: int, most: int) -> Evaluator:
    """`probe_accuracy`, the accuracy on held-out examples of a multinomial logistic regression of the frozen features
    of training examples, and `probe_train_accuracy` on those. Each feature has mean 0 and deviation 1 over the training
    examples.

    Where we differ from the usual protocol of 90 epochs with augmentation: L-BFGS on unaugmented examples, to its end.

    Args:
        features: (model, example) -> vector.
        train, test: with `label`.
        most: training examples that are taken, evenly over the part, where there are more.
    """
    chosen = np.linspace(0, train.size, min(train.size, most), endpoint=False).astype(int)
    fitted = Examples(len(chosen), lambda numbers: train.read(chosen[numbers]), train.batch)

    def run(model: PyTree, frozen: Any, stream: Stream) -> dict[str, float]:
        known, held = (stream.gather(Labelled(features), model, each) for each in (fitted, test))
        accuracies = from_first(lambda: _accuracies(known, held, classes))
        return dict(zip(PROBE.gives, accuracies))

    return Evaluator(PROBE, run, lacks="" if classes > 1 else "the images have one class")


class Labelled(eqx.Module):
    features: Function = eqx.field(static=True)

    def __call__(self, tree: PyTree, example: dict[str, Array]) -> tuple[Array, Array]:
        return self.features(tree, example), example["label"]


def _accuracies(fitted: Any, test: Any, classes: int) -> list[float]:
    known, labels = fitted
    weight, bias = regression(standardised(known), labels, classes)
    return [float(np.mean(np.argmax(standardised(x, known) @ weight + bias, axis=1) == y)) for x, y in (test, fitted)]


def standardised(x: Any, of: Any = None) -> Any:
    """Features (n, dim) with mean 0 and deviation 1 over themselves, or as those of others have them."""
    of = x if of is None else of
    return (x - of.mean(axis=0)[None]) / (of.var(axis=0)[None] + 1e-12) ** 0.5  # whose derivative is finite at 0


def regression(
    x: Float[np.ndarray, "n dim"], labels: Int[np.ndarray, " n"], classes: int
) -> tuple[Float[np.ndarray, "dim classes"], Float[np.ndarray, " classes"]]:
    """Weight and bias of the multinomial logistic regression with the least loss (`DECAY`), by L-BFGS."""
    dim = x.shape[1]
    data, right = jnp.asarray(x, jnp.float32), jnp.asarray(labels)

    @jax.jit
    def loss(parameters: Array) -> Array:
        weight, bias = parameters[:-classes].reshape(dim, classes), parameters[-classes:]
        log_prob = jax.nn.log_softmax(data @ weight + bias[None, :])
        hit = jnp.take_along_axis(log_prob, right[:, None], axis=1)
        return DECAY / 2 * jnp.sum(weight**2) - jnp.mean(hit)

    slope = jax.jit(jax.value_and_grad(loss))

    def called(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        value, gradient = slope(jnp.asarray(parameters, jnp.float32))
        return float(value), np.asarray(gradient, np.float64)

    start = np.zeros((dim + 1) * classes)
    options = {"maxiter": UPDATES, "gtol": 1e-5, "ftol": 1e-9}
    found = scipy.optimize.minimize(called, start, jac=True, method="L-BFGS-B", options=options).x
    return found[:-classes].reshape(dim, classes), found[-classes:]
