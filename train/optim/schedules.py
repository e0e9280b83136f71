"""Learning rates by step."""

import jax
import jax.numpy as jnp
import optax

from ..config.optim import OptimConfig

START = 1 / 25  # where one_cycle begins, as a fraction of the peak (fastai's and PyTorch's div_factor)


def schedule(config: OptimConfig, steps: int) -> optax.Schedule:
    """Learning rate by step: the warm-up, then what `config.decay` says; `config.final` of the peak at the last
    step.

    Step i of a warm-up of w steps has (i + 1) / w of the peak, so that the first update counts and step w - 1 is at the
    peak. Versions before began at 0, i / w; their runs resume, and a run that had not left its warm-up goes on with
    rates that are 1 / w of the peak higher.
    """
    peak, warmup = config.learning_rate, min(config.warmup, steps)
    rise = lambda step: peak * jnp.minimum((1 + jnp.asarray(step)) / max(warmup, 1), 1)  # steps may be fractions
    if config.decay == "one_cycle":
        rise = lambda step: peak * (1 - (1 - START) * _cosine(step / max(warmup, 1)))
    return optax.join_schedules([rise, after(config, warmup, max(steps - warmup, 1))], [warmup])


def after(config: OptimConfig, warmup: int, steps: int) -> optax.Schedule:
    """Learning rate by step from the peak on, over so many steps."""
    peak, final = config.learning_rate, config.final
    match config.decay:
        case "cosine" | "one_cycle":
            return optax.cosine_decay_schedule(peak, steps, alpha=final)
        case "linear":
            return optax.linear_schedule(peak, peak * final, steps)
        case "exponential":
            return optax.exponential_decay(peak, steps, final)
        case "inverse_sqrt":
            return lambda step: peak * jnp.sqrt(max(warmup, 1) / (max(warmup, 1) + jnp.asarray(step, jnp.float32)))
        case "wsd":
            down = max(round(config.cooldown * (warmup + steps)), 1)
            flat = max(steps - down, 0)
            return optax.join_schedules(
                [optax.constant_schedule(peak), optax.linear_schedule(peak, peak * final, steps - flat)], [flat]
            )
        case _:
            return optax.constant_schedule(peak)


def _cosine(progress: jax.typing.ArrayLike) -> jax.Array:
    """1 at progress 0, 0 at 1."""
    return (1 + jnp.cos(jnp.pi * jnp.asarray(progress))) / 2
