"""Training of a part of a model: frozen parameters, and low-rank updates of a frozen model (Hu et al. 2021,
arXiv:2106.09685).

The model of a program is divided into what is trained, which is all that the state of a run holds, and the rest, which
is one of the frozen parts. A loss is given both together.
"""

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import equinox as eqx
import jax
import jax.random as jr
from jax.sharding import Mesh
from jaxtyping import Array, PRNGKeyArray, PyTree

from eqxgen.nn import lora, merge_lora, not_lora

from .._errors import UsageError
from ..config.base import TrainConfig
from ..parallel.gather import combined
from ..parallel.rules import map_named, place
from ..params.paths import any_of, leaves, mask, matches, named_arrays
from .recipe import Context, Program, Turn
from .start import Start

if TYPE_CHECKING:
    from .task import Task


class Frozen(NamedTuple):
    """Frozen parts of a program of which a part is trained: its own, and the rest of its model."""

    own: PyTree
    rest: PyTree


class Division(NamedTuple):
    """Division of a model.

    Attributes:
        make: key -> the model, with low-rank updates where they are trained.
        trained: the model with true in place of the arrays that are trained.
    """

    make: Callable[[PRNGKeyArray], PyTree]
    trained: PyTree

    def moved(self, model: PyTree) -> PyTree:
        """The trained part."""
        return eqx.filter(model, self.trained)

    def rest(self, model: PyTree) -> PyTree:
        """All else, without the randomness and the statistics of training in modules that are frozen whole."""
        moved, rest = eqx.partition(model, self.trained)
        return _still(rest, moved)


def division(config: TrainConfig, program: Program, left: Collection[str]) -> Division:
    """The division that `--freeze` or `--lora` asks for.

    Args:
        left: paths of the arrays that `--from` leaves at their initialisation, which are trained whole.

    Raises:
        UsageError: a pattern names nothing, or nothing is left to train.
    """
    shapes = eqx.filter_eval_shape(program.init, jr.key(0))
    if config.lora.rank is None:
        frozen = _patterns("freeze", config.freeze, list(named_arrays(shapes)))
        trained = mask(shapes, lambda path, leaf: _is_array(leaf) and (path in left or not frozen(path, leaf)))
        found = Division(program.init, trained)
    else:
        found = _low_rank(config, program, shapes, left)
    if not jax.tree.leaves(found.moved(eqx.filter_eval_shape(found.make, jr.key(0)))):
        raise UsageError(
            f"--freeze {' '.join(config.freeze)}: must leave something to train: got every parameter; narrow a pattern"
            f"{', or give --new-head' if program.head else ''}"
        )
    return found


def _low_rank(config: TrainConfig, program: Program, shapes: PyTree, left: Collection[str]) -> Division:
    rank, alpha = config.lora.rank or 0, config.lora.alpha
    paths = [path for path, leaf in leaves(shapes) if _is_array(leaf)]
    targets = _patterns("lora.targets", config.lora.targets, paths)
    where = lambda path, layer: targets(f"{path}.weight", layer) and f"{path}.weight" not in left

    def make(key: PRNGKeyArray) -> PyTree:
        return lora(program.init(key), rank, alpha, where=where, key=jr.fold_in(key, 1))

    try:
        adapted = eqx.filter_eval_shape(make, jr.key(0))
    except ValueError as error:
        hint = "it is for models with projections, such as transformers" if "Projection" in str(error) else error
        raise UsageError(
            f"--lora.rank {rank}, of --lora.targets {' '.join(config.lora.targets)}: {hint}; --lora.targets chooses "
            "others"
        ) from None
    trains = lambda path, leaf: _is_array(leaf) and (path in left or not not_lora(path, leaf))
    return Division(make, mask(adapted, trains))


def tuned(program: Program, parts: Division, rest: Callable[[], PyTree]) -> Program:
    """The program that trains a part of its model.

    Args:
        rest: makes or loads what is not trained.

    Raises:
        UsageError: a player has no parameter left.
    """

    def whole(function: Callable | None) -> Callable | None:
        if function is None:
            return None

        @functools.wraps(function)
        def call(model: PyTree, batch: dict[str, Array], keys: Array, context: Context) -> Any:
            own, rest = context.frozen
            return function(combined(model, rest), batch, keys, context._replace(frozen=own))

        return call

    def turn(of: Turn) -> Turn:
        return dataclasses.replace(of, loss=whole(of.loss), whole=whole(of.whole))

    def changed(change: Callable) -> Callable:
        def call(model: PyTree, batch: dict[str, Array], key: PRNGKeyArray, context: Context) -> tuple[PyTree, PyTree]:
            model, state = whole(change)(model, batch, key, context)  # pyright: ignore[reportOptionalCall]
            return parts.moved(model), state

        return call

    def init_state(moved: PyTree) -> PyTree:
        return program.init_state(merge_lora(eqx.combine(moved, parts.make(jr.key(0)))))

    paths = list(named_arrays(eqx.filter_eval_shape(lambda key: parts.moved(parts.make(key)), jr.key(0))))
    here = lambda patterns: tuple(pattern for pattern in patterns if any(matches(pattern, path) for path in paths))
    own = {name: here(player.patterns) for name, player in program.players.items()}
    if gone := [name for name, patterns in own.items() if not patterns]:
        raise UsageError(f"--freeze: must leave something of each player to train: got nothing of {', '.join(gone)}")
    return dataclasses.replace(
        program,
        init=lambda key: parts.moved(parts.make(key)),
        turns={name: turn(of) for name, of in program.turns.items()},
        players={name: dataclasses.replace(program.players[name], params=patterns) for name, patterns in own.items()},
        changes={name: dataclasses.replace(of, change=changed(of.change)) for name, of in program.changes.items()},
        init_state=init_state,
        frozen=lambda: Frozen(program.frozen(), rest()),
        fixed=here(program.fixed),
    )


def tuned_task(config: TrainConfig, task: "Task", start: Start, mesh: Mesh) -> tuple["Task", Start]:
    """The task that trains a part of its model, and the weights that this part starts from. What is not trained is
    read at once, each device its part.

    Raises:
        UsageError: see `division` and `tuned`.
    """
    left = {path.removeprefix("model.") for path in start.left}
    parts = division(config, task.program, left)
    found = start.load(mesh)

    def make(key: PRNGKeyArray, found: dict[str, Array]) -> PyTree:
        replaced = map_named(lambda path, leaf: found.get(f"model.{path}", leaf), task.program.init(key))
        adapted = parts.make(key)
        return place(parts.rest(_with(adapted, replaced)), mesh)

    rest = eqx.filter_jit(make)(jr.fold_in(jr.key(config.seed), 0), found)
    released = lambda model, state: task.released(merge_lora(eqx.combine(model, rest)), state)
    trained = set(named_arrays(eqx.filter_eval_shape(lambda key: parts.moved(parts.make(key)), jr.key(0))))
    kept = {
        path: stored
        for path, stored in start.arrays.items()
        if path.startswith("state.") or path.removeprefix("model.") in trained
    }
    program = tuned(task.program, parts, lambda: rest)
    after = dataclasses.replace(task, program=program, released=released, own=lambda frozen: frozen.own)
    return after, start._replace(arrays=kept)


def on_paper(config: TrainConfig, program: Program) -> Program:
    """The program that trains a part of its model, by shapes alone."""
    if not config.partial:
        return program
    shapes = eqx.filter_eval_shape(program.init, jr.key(0))
    new = program.head if program.new_head else ()
    left = {path for path in named_arrays(shapes) if any(matches(pattern, path) for pattern in new)}
    parts = division(config, program, left)
    return tuned(program, parts, lambda: parts.rest(parts.make(jr.key(0))))


def _with(adapted: PyTree, model: PyTree) -> PyTree:
    """The adapted model with the arrays of another of the same structure without updates."""
    values = iter(jax.tree.leaves(eqx.filter(model, eqx.is_array)))
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: next(values) if eqx.is_array(leaf) and not_lora(_dotted(path), leaf) else leaf, adapted
    )


def _still(rest: PyTree, moved: PyTree) -> PyTree:
    """The rest with inference switched on in every node that has arrays, none of which is trained."""
    if not jax.tree.leaves(eqx.filter(moved, _is_array)):
        return eqx.nn.inference_mode(rest) if jax.tree.leaves(eqx.filter(rest, _is_array)) else rest
    if rest is None:
        return None
    children, structure = jax.tree.flatten(rest, is_leaf=lambda node: node is not rest)
    others = jax.tree.leaves(moved, is_leaf=lambda node: node is not moved)
    return jax.tree.unflatten(structure, [_still(*pair) for pair in zip(children, others, strict=True)])


def _patterns(flag: str, patterns: tuple[str, ...], paths: Iterable[str]) -> Callable[[str, Any], bool]:
    try:
        return any_of(patterns, list(paths))
    except ValueError as error:
        raise UsageError(f"--{flag}: {error}; --print-groups lists them all") from None


def _dotted(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _is_array(leaf: Any) -> bool:
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)
