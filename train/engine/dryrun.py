"""`--dry-run`: the sizes of a run and its compiled step, before any data is read or file written."""

import importlib.util
import os
import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
from jax.sharding import Mesh

from .._errors import UserError
from ..config.base import TrainConfig
from ..optim import check_groups, groups_of, table
from ..parallel import check_batch, check_heads, make_mesh, place, replicated, split, split_several
from ..report.peak import flops_of
from .axes import check_axes
from .recipe import Program
from .scan import Several, kinds, make_updates
from .start import opened
from .step import Inputs, Setup, abstract_state, make_update
from .tuning import on_paper


def dry_run(config: TrainConfig, program: Program, recipe: str) -> int:
    """Prints parameters, FLOPs, bytes and memory of one compiled update; gives the exit status.

    Raises:
        UsageError: the file of `--from` is missing or of another family.
        UserError: the update does not fit in a device's memory.
    """
    if opened(config, recipe) is not None:
        print(f"--from {config.start_from}: found; its arrays are compared with the model when the run starts")
    program = on_paper(config, program)
    if config.print_groups:
        print_groups(config, program)
        return 0
    target = config.compile_for
    mesh = make_mesh(config.mesh, None if target in (None, "cuda") else topology(target))
    check_batch(config.batch_size, mesh, config.accumulate)
    check_axes(program, mesh)
    update, inputs, state = abstract_update(config, program, mesh)
    parameters = sum(leaf.size for leaf in jax.tree.leaves(eqx.filter(state.model, _is_shape)))
    for name, (shape, dtype) in program.shapes.items():
        print(f"batch.{name:18} {dtype}{[config.batch_size, *shape]}")
    print(f"parameters               {parameters:,} ({4 * parameters / 2**20:,.0f} MiB in float32)")
    print(f"steps                    {config.steps:,}, {config.steps * config.batch_size:,} examples")
    print(f"TFLOP per device         {flops_of(update, inputs, state) / mesh.size / 1e12:,.3f}")
    if config.scan > 1:
        print(f"updates in one call      {config.scan}")
        update, inputs = _several(config, program, mesh, update, inputs, state)
    begin = time.perf_counter()
    lowered = lower(update, inputs, state, "cuda" if target == "cuda" else None)
    print(f"lowered                  {time.perf_counter() - begin:.1f} s")
    if target == "cuda":
        print(
            f"lowered for cuda         {len(lowered.as_text()):,} characters of StableHLO; a GPU machine compiles the "
            "rest"
        )
        return 0
    begin = time.perf_counter()
    compiled = _compiled(lowered, mesh)
    print(
        f"compiled                 {time.perf_counter() - begin:.1f} s for {mesh.size} x "
        f"{mesh.devices.flat[0].device_kind}"
    )
    print(f"Pallas kernels           {compiled.as_text().count('tpu_custom_call')}")
    for name, value in memory_of(compiled).items():
        print(f"{name:24} {value:,.3f}")
    return 0


def print_groups(config: TrainConfig, program: Program) -> None:
    """Prints the parameters of each player, and how its optimiser treats them."""
    model = eqx.filter_eval_shape(program.init, jr.key(0))
    for name, claim in program.claims(model).items():
        optim, params = program.players[name].optim or config.optim, eqx.filter(model, claim)
        check_groups(optim, params)
        if len(program.players) > 1:
            print(f"{name}:")
        print(table(groups_of(optim, params)))


def abstract_update(config: TrainConfig, program: Program, mesh: Mesh) -> tuple[Any, Any, Any]:
    """The update and the shapes of its arguments, placed on the mesh: no array is made."""
    setup = Setup.of(config, program, mesh, on_cpu=config.compile_for is None and jax.default_backend() == "cpu")
    state = abstract_state(setup)
    check_heads(state.model, mesh)
    arrays = {
        name: jax.ShapeDtypeStruct((config.batch_size, *shape), kind) for name, (shape, kind) in program.shapes.items()
    }
    arrays |= {
        "index": jax.ShapeDtypeStruct((config.batch_size,), jnp.int32),
        "weight": jax.ShapeDtypeStruct((config.batch_size,), jnp.float32),
    }
    batch = {name: _place(array, split(mesh)) for name, array in arrays.items()}
    key = _place(jax.eval_shape(lambda: jr.key(0)), replicated(mesh))
    shapes: Any = (batch, key, place(eqx.filter_eval_shape(program.frozen), mesh))
    return make_update(setup), Inputs(*shapes), state


def _several(
    config: TrainConfig, program: Program, mesh: Mesh, update: Any, inputs: Inputs, state: Any
) -> tuple[Any, Several]:
    """Several updates, and the shapes of their arguments; see `abstract_update`."""
    place = split_several(mesh)
    batch = {
        name: jax.ShapeDtypeStruct((config.scan, *x.shape), x.dtype, sharding=place) for name, x in inputs.batch.items()
    }
    one = len(kinds(program)) == 1
    before = {} if one else eqx.filter_eval_shape(update, inputs, state)[1]
    put = lambda x: _place(x, replicated(mesh))
    numbers: Any = put(jax.ShapeDtypeStruct((config.scan,), jnp.int32))
    setup = Setup.of(config, program, mesh, on_cpu=config.compile_for is None and jax.default_backend() == "cpu")
    return make_updates(setup), Several(inputs._replace(batch=batch), numbers, jax.tree.map(put, before))


def lower(update: Any, inputs: Any, state: Any, platform: str | None = None) -> Any:
    """The lowered update of arguments that are only shapes, for the platform of their shardings or for a named one."""
    (inputs, state), rest = eqx.partition((inputs, state), _is_shape)

    def function(inputs: Any, state: Any) -> Any:
        return eqx.filter(update(*eqx.combine((inputs, state), rest)), eqx.is_array)

    traced = jax.jit(function, donate_argnums=1).trace(inputs, state)
    return traced.lower() if platform is None else traced.lower(lowering_platforms=(platform,))


def _compiled(lowered: Any, mesh: Mesh) -> Any:
    """The compiled update.

    Raises:
        UserError: it does not fit in a device's memory.
    """
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        kind, (why, *_) = mesh.devices.flat[0].device_kind, str(error).splitlines()
        raise UserError(
            f"--dry-run: the update does not fit in the memory of a {kind}: raise --accumulate, or divide the "
            f"parameters by --mesh fsdp=N: {why}"
        ) from None


def memory_of(compiled: Any) -> dict[str, float]:
    """The compiler's estimate of a program's memory on each device; empty where it has none."""
    memory = compiled.memory_analysis()
    if memory is None:
        return {}
    kept = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    return {
        "GiB of state and batch": kept / 2**30,
        "GiB of temporaries": memory.temp_size_in_bytes / 2**30,
        "GiB per device": (kept + memory.temp_size_in_bytes) / 2**30,
    }


def topology(target: str) -> Any:
    """The devices of a TPU topology such as v5e:2x4, from libtpu, without a TPU."""
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no metadata server to ask
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")  # nor a chip that a second process could take
    from jax.experimental import topologies

    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=target).devices
    except (RuntimeError, ValueError, ImportError) as error:
        if importlib.util.find_spec("libtpu") is None:
            raise UserError(f'--compile-for {target}: needs libtpu: pip install "eqxgen[tpu]"') from None
        raise UserError(f"--compile-for {target}: {error}") from None


def _is_shape(x: Any) -> bool:
    return isinstance(x, jax.ShapeDtypeStruct)


def _place(x: jax.ShapeDtypeStruct, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
