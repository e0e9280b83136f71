"""The optimiser that a config names, as one chain."""

import dataclasses

import equinox as eqx
import jax
import optax
from jax.sharding import Mesh
from jaxtyping import Array, PyTree

from ..config.optim import OptimConfig
from .groups import groups_of
from .layers import lars_ratio, like_adam, scale_by_group, trust_ratio
from .schedules import schedule
from .shampoo import ShampooState, scale_by_shampoo
from .soap import scale_by_soap
from .sophia import SophiaState, scale_by_sophia


def optimiser(
    config: OptimConfig, steps: int, updates: float = 1.0, share: float = 1.0, mesh: Mesh | None = None
) -> optax.GradientTransformationExtraArgs:
    """Clip by the global norm, the named rule, decoupled weight decay, each group's multiplier, the schedule.

    Args:
        updates: per step, where that is not one; the schedule is stretched accordingly.
        share: c = k / (k + 1) of a lazy regulariser every k steps: the learning rate is multiplied by c, the betas are
            raised to the power c (Karras et al. 2020, arXiv:1912.04958, appendix B).
        mesh: its devices share out what shampoo computes of whole matrices.
    """
    clip = optax.identity() if config.clip == float("inf") else optax.clip_by_global_norm(config.clip)
    config = dataclasses.replace(
        config,
        learning_rate=share * config.learning_rate,
        beta1=config.beta1**share,
        beta2=config.beta2**share,
        momentum=config.momentum**share,
    )
    by_step = schedule(config, steps)
    rate = by_step if updates == 1 else lambda count: by_step(count / updates)
    tail = (scale_by_group(config), optax.scale_by_learning_rate(rate))
    decay = optax.add_decayed_weights(
        config.weight_decay, mask=lambda params: jax.tree.map(lambda g: g.decayed, groups_of(config, params))
    )
    match config.name:
        case "schedule_free":
            second = optax.scale_by_rms(config.beta2, config.epsilon, eps_in_sqrt=False, bias_correction=True)
            rule = optax.contrib.schedule_free(optax.chain(second, decay, *tail), rate, config.beta1)
            return optax.chain(clip, rule)
        case "lamb":
            return optax.chain(clip, _rule(config, mesh), decay, trust_ratio(config), *tail)
        case "lars":
            return optax.chain(clip, lars_ratio(config), *tail, _momentum(config))
        case _:
            return optax.chain(clip, _rule(config, mesh), decay, *tail)


def shown(model: PyTree, opt_state: PyTree, chosen: PyTree = eqx.is_inexact_array) -> PyTree:
    """The weights to average and to show: the model's own, but for schedule_free, which trains beside the point it
    promises.

    Args:
        opt_state: of the optimiser of some parameters.
        chosen: these, as `eqx.partition` takes them.
    """
    is_free = lambda node: isinstance(node, optax.contrib.ScheduleFreeState)
    states = [node for node in jax.tree.leaves(opt_state, is_leaf=is_free) if is_free(node)]
    if not states:
        return model
    params, rest = eqx.partition(model, chosen)
    return eqx.combine(optax.contrib.schedule_free_eval_params(states[0], params), rest)


def failures(opt_state: PyTree) -> dict[str, Array]:
    """Numbers of what an optimiser could not compute and did without, by the name of their metric; {} of most."""
    kinds = {"failed_roots": ShampooState, "failed_curvatures": SophiaState}
    is_one = lambda node: isinstance(node, tuple(kinds.values()))
    states = [node for node in jax.tree.leaves(opt_state, is_leaf=is_one) if is_one(node)]
    return {name: state.failed for name, kind in kinds.items() for state in states if isinstance(state, kind)}


def _momentum(config: OptimConfig) -> optax.GradientTransformation:
    return optax.trace(config.momentum, config.nesterov) if config.momentum else optax.identity()


def _rule(config: OptimConfig, mesh: Mesh | None) -> optax.GradientTransformation:
    adam = optax.scale_by_adam(config.beta1, config.beta2, config.epsilon)
    momentum = _momentum(config)
    match config.name:
        case "lion":
            return optax.scale_by_lion(config.beta1, config.beta2)
        case "adafactor":
            first = optax.ema(config.beta1, debias=False) if config.beta1 else optax.identity()
            return optax.chain(optax.scale_by_factored_rms(), optax.clip_by_block_rms(1.0), first)
        case "muon":
            muon = optax.contrib.scale_by_muon(
                beta=config.momentum, weight_dimension_numbers=lambda params: _dimensions(config, params)
            )
            kinds = lambda params: jax.tree.map(lambda g: "muon" if g.hidden else "adam", groups_of(config, params))
            return optax.multi_transform({"muon": optax.chain(muon, like_adam(config)), "adam": adam}, kinds)
        case "soap":
            return scale_by_soap(config)
        case "shampoo":
            return scale_by_shampoo(config, mesh)
        case "sophia":
            return scale_by_sophia(config)
        case "adabelief":
            # The paper's s has the same ε added at every update as the root has (arXiv:2010.07468, algorithm 2).
            return optax.scale_by_belief(config.beta1, config.beta2, config.epsilon, config.epsilon)
        case "rmsprop":
            return optax.chain(
                optax.scale_by_rms(config.beta2, config.epsilon, eps_in_sqrt=False, bias_correction=True), momentum
            )
        case "sgd":
            return momentum
        case _:
            return adam


def _dimensions(config: OptimConfig, params: PyTree) -> PyTree:
    """Matrix axes of each array: of a linear map the last two, of a convolution all but the last against the last."""

    def of(group) -> optax.contrib.MuonDimensionNumbers:
        rank = len(group.shape)
        return optax.contrib.MuonDimensionNumbers(tuple(range(int(group.stacked), rank - 1)), rank - 1)

    return jax.tree.map(of, groups_of(config, params))
