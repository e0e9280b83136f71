"""The optimiser and its schedule."""

import jax
import optax

from train.config import OptimConfig


def schedule(config: OptimConfig, steps: int) -> optax.Schedule:
    """Learning rate by step: linear warm-up, then a cosine to 0 at the last step, or constant."""
    peak, warmup = config.learning_rate, min(config.warmup, steps)
    if config.decay == "constant":
        return optax.join_schedules([optax.linear_schedule(0, peak, max(warmup, 1)), optax.constant_schedule(peak)], [warmup])
    return optax.warmup_cosine_decay_schedule(0, peak, warmup, max(steps, warmup + 1))


def optimiser(config: OptimConfig, steps: int) -> optax.GradientTransformation:
    """Clip by the global norm, Adam, decoupled weight decay of arrays of two and more axes, the schedule."""
    return optax.chain(
        optax.clip_by_global_norm(config.clip),
        optax.scale_by_adam(config.beta1, config.beta2),
        optax.add_decayed_weights(config.weight_decay, mask=lambda params: jax.tree.map(lambda p: p.ndim >= 2, params)),
        optax.scale_by_learning_rate(schedule(config, steps)),
    )
