"""A small net that an evaluator trains by itself, in the first process, a second at a time."""

import functools
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray

from ..optim.ema import decay, move
from ..parallel.processes import arrays_from_first, from_first
from ..report.log import time_left
from .stream import PATIENCE, Stream

_CHUNK = 5  # steps that are in flight at once
_SECONDS = 1.0  # of training between looks for a signal
_AVERAGE = 0.99

Net = TypeVar("Net")
Loss = Callable[[Any, Any, PRNGKeyArray], Array]


class Trainer(Generic[Net]):
    """Steps of AdamW with a warm-up of a tenth and a cosine. `model` is the average of the weights.

    Args:
        model: at the start.
        loss: (model, batch, key) -> scalar.
        batch: number of a step -> its arrays.
        rate: peak of the learning rate.
        weight_decay: decoupled, of all parameters.
        seed: of the keys of the steps.
    """

    def __init__(
        self,
        model: Net,
        loss: Loss,
        batch: Callable[[int], Any],
        steps: int,
        *,
        rate: float,
        weight_decay: float,
        seed: int,
    ):
        schedule = optax.warmup_cosine_decay_schedule(0, rate, steps // 10, steps)
        self.update = (optimiser := optax.adamw(schedule, weight_decay=weight_decay)).update
        self.steps, self.loss, self.batch = steps, loss, batch
        self.model, self.key = model, jr.key(seed)
        self.state = model, optimiser.init(eqx.filter(model, eqx.is_inexact_array))

    def train(self, first: int) -> int:
        """Makes the steps of about a second; gives the number made so far."""
        began, done = time.perf_counter(), first
        while done < self.steps and time.perf_counter() - began < _SECONDS:
            chunk = range(done, min(done + _CHUNK, self.steps))
            for number in chunk:
                numbered = self.batch(number), np.int32(number)
                self.state, self.model = _step(self.state, self.model, numbered, self.key, self.loss, self.update)
            jax.block_until_ready(eqx.filter(self.model, eqx.is_array))
            done = chunk.stop
        return done


def trained(trainer: Trainer[Net], stream: Stream, what: str = "classifier") -> Net:
    """The net after all steps, which the first process makes.

    Raises:
        Stopped: a signal ended its training.
    """
    done, said = 0, (began := time.perf_counter())
    while done < trainer.steps:
        stream.check()
        done, now = from_first(functools.partial(trainer.train, done)), time.perf_counter()
        if now - said > PATIENCE:
            left = (now - began) / done * (trainer.steps - done)
            stream.say(f"{what}: step {done} of {trainer.steps}, {time_left(left)} left")
            said = now
    return arrays_from_first(trainer.model)


@eqx.filter_jit
def _step(state: tuple[Any, Any], average: Any, numbered: Any, key: PRNGKeyArray, loss: Loss, update: Callable) -> Any:
    (model, opt_state), (batch, number) = state, numbered
    gradient = eqx.filter_grad(loss)(model, batch, jr.fold_in(key, number))
    updates, opt_state = update(gradient, opt_state, eqx.filter(model, eqx.is_inexact_array))
    model = eqx.apply_updates(model, updates)
    return (model, opt_state), move(average, model, decay(_AVERAGE)(number))


def smoothed(logits: Array, labels: Array, smoothing: float) -> Array:
    """Mean cross-entropy of a batch with smoothed targets."""
    targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), smoothing)
    return jnp.mean(optax.softmax_cross_entropy(logits, targets))
