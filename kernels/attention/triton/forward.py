"""The launch of the forward pass."""

import jax
import jax.numpy as jnp

from ..._blocks import parts
from ..problem import Extras, Setting
from . import launch as launching
from .launch import Problem
from .schedule import schedule_of

Shape = jax.ShapeDtypeStruct


def attend(q, k, v, extras: Extras, setting: Setting):
    """(out, logsumexp) as `reference.attend` gives them, by one kernel."""
    problem = Problem(q, k, v, extras, setting)
    tile = problem.tile("FORWARD")
    schedule = schedule_of(extras.mask, problem.sizes, tile.q, tile.k, by_keys=False)
    heads, _, q_seq, _, _, v_dim = problem.sizes
    outputs = (Shape((problem.batch, q_seq, heads, v_dim), q.dtype), Shape((problem.batch, heads, q_seq), jnp.float32))
    grid = problem.batch * heads * parts(q_seq, tile.q)
    launch = problem.launch("forward_kernel", "forward", outputs, grid, tile, PLAN=schedule.plan)
    out, lse = launching.call(launch, q, k, v, *problem.pointers, schedule.entries)
    return out, lse
