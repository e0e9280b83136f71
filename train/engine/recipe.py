"""The contract between a recipe and the engine: losses, players, turns, changes, model state, frozen parts.

A `Program` is everything of a recipe that can be compiled before any data is read. A step makes the turns that are due,
one after another, each with one backward pass:

- Two players that share one forward pass are one turn, whose loss holds each player's part still in the other's terms
  (`jax.lax.stop_gradient`), so that one gradient of the sum is the update of both.
- Two players that alternate are two turns; the second sees the update of the first.
- A lazy regulariser is a turn with `every=k` on a player that another turn moves too. Its gradient counts k times, and
  the player's learning rate and betas are corrected for the additional updates (Karras et al. 2020, arXiv:1912.04958,
  appendix B).
"""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray, PyTree

from eqxgen.nn import own_tokens

from ..config.optim import OptimConfig
from ..params.paths import any_of, leaves, mask


class Context(NamedTuple):
    """Arguments of a loss beside the model, the batch and the keys.

    Attributes:
        state: model state: running statistics, averages of a codebook. `Sums.state` is the one after.
        frozen: parts that are neither differentiated, averaged nor written into checkpoints, such as a judge.
        step: number of the step, traced; from 0.
        axes: mesh axes over which the batch and its examples are split; () where they are whole.
        whole: sums over the whole batch that the turn's `whole` gives, where the batch comes in micro-batches; None
            where it does not: the loss sums its own by `sum`.
        parts: number of micro-batches, over which the state is handed on.
        part: number of this one, traced; from 0.
    """

    state: PyTree = None
    frozen: PyTree = None
    step: Int[Array, ""] | int = 0
    axes: tuple[str, ...] = ()
    whole: PyTree = None
    parts: int = 1
    part: Int[Array, ""] | int = 0

    def sum(self, x: PyTree) -> PyTree:
        """Sum over the parts of the batch."""
        return jax.lax.psum(x, self.axes) if self.axes else x

    def mean(self, x: PyTree) -> PyTree:
        """Mean over the parts of the batch."""
        return jax.lax.pmean(x, self.axes) if self.axes else x

    def tokens(self, x: Array) -> Array:
        """This device's tokens of an array (examples, tokens, ...): all, but under `--mesh context`. The layers of a
        model take them so, see `eqxgen.nn.split_over`, and the sums of a loss are over them.
        """
        return own_tokens(x, 1)


class Sums(NamedTuple):
    """A loss of some examples, as sums over them: neither the split over devices nor an uneven batch changes the mean.

    Attributes:
        loss: the summed loss; the step minimises the sum over all devices divided by the sum of `weight`.
        weight: number of what the loss is a sum over: examples, or tokens, each times its `batch["weight"]`.
        metrics: further sums, each reported divided by `weight`.
        state: the model state after these examples, the same on every device; None: unchanged.
    """

    loss: Float[Array, ""]
    weight: Float[Array, ""]
    metrics: Mapping[str, Float[Array, ""]]
    state: PyTree = None


Loss = Callable[[Any, dict[str, Array], PRNGKeyArray, Context], Sums]
"""(model, the device's part of a batch, one key per example, context) -> Sums.

`batch["weight"]` is 1, or 0 for an example that only fills up an uneven batch: it must count for nothing. A term that
is no sum over examples, such as an average inside a logarithm, is first summed over the devices by `context.sum` or
`context.mean`; over micro-batches by `Turn.whole`."""


@dataclasses.dataclass(frozen=True)
class Player:
    """Parameters with an optimiser of their own.

    Args:
        params: path patterns (`train.params.paths.matches`) of its parameters.
        optim: its optimiser, clip and schedule; None: the run's `optim`.
    """

    params: str | tuple[str, ...] = "**"
    optim: OptimConfig | None = None

    @property
    def patterns(self) -> tuple[str, ...]:
        return (self.params,) if isinstance(self.params, str) else self.params


@dataclasses.dataclass(frozen=True)
class Turn:
    """A loss, and the players whose parameters its gradient moves.

    Args:
        loss: see `Loss`.
        players: names of the players.
        every: due at each step that is a multiple of it.
        whole: with a loss that is no sum over examples: (model, batch, keys, context) -> sums over these examples
            without a gradient. Of a batch in micro-batches they are taken in a pass of their own before, and added up
            over micro-batches and devices.

    Raises:
        ValueError: every is below 1, or there is no player.
    """

    loss: Loss
    players: tuple[str, ...] = ("model",)
    every: int = 1
    whole: Callable[[Any, dict[str, Array], PRNGKeyArray, Context], PyTree] | None = None

    def __post_init__(self):
        if self.every < 1:
            raise ValueError(f"Turn.every must be at least 1 step: got {self.every}; 1 makes the turn at every step")
        if not self.players:
            raise ValueError('Turn.players must name at least one player: got (); name one, such as ("model",)')


@dataclasses.dataclass(frozen=True)
class Change:
    """A change of the model without a gradient, before the turns of its step, such as dead codes restarted.

    Args:
        change: (model, batch, key, context) -> (model, model state). The batch is whole (`context.axes` is ()). The
            averages follow what it moves; a change that is not finite is not made.
        due: of the number of a step.
        places: path patterns of what it initialises from data at step 0, such as `model.quantizer`; a run that starts
            from weights with all of it leaves the change out there.
    """

    change: Callable[[Any, dict[str, Array], PRNGKeyArray, Context], tuple[PyTree, PyTree]]
    due: Callable[[int], bool]
    places: tuple[str, ...] = ()


class Pace(NamedTuple):
    """Updates of a player.

    Attributes:
        updates: mean number per step, by which its schedule is stretched.
        share: of them, those of the turns of every step, by which a lazy regulariser corrects the learning rate and
            the betas: k / (k + 1) with one every k steps.
    """

    updates: float = 1.0
    share: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """A model, its losses and its players.

    Args:
        init: makes the model from a key.
        turns: the losses by name, in the order in which a step makes them. The first is due at every step; its loss is
            reported as `loss`, that of another as `<turn>_loss`.
        shapes: shape of one example and type of each array in a batch.
        players: optimisers by name; each parameter belongs to one of them.
        changes: changes without a gradient, by name.
        init_state: makes the model state from the model.
        frozen: makes or loads the frozen parts.
        fixed: path patterns of parameters that no player moves.
        mix: (batch, key of the step) -> the batch that the turns are given, such as examples mixed with each other. It
            sees the whole batch, before that is split over devices or into micro-batches.
        constrained: model -> the model with a constraint on its parameters, such as a largest temperature; applied
            after each update. Parts that are not trained are None.
        head: path patterns of parameters whose shapes follow the labels.
        lacking: path patterns of parameters that a published model may be without.
        new_head: leaves the head at its initialisation in a run that starts from weights.
        failed: (metrics of a step) -> reason for which they show that training has failed, or an empty text. A run
            stops where there is one at `train.engine.loop.PATIENCE` steps in a row.
        sequence: tokens of an example, where `--mesh context` may split them: every loss takes its tokens by
            `Context.tokens`, and its weight is their number. None: it may not.

    Raises:
        ValueError: a turn names no player of the program, a player has no turn, or the first turn is lazy.
    """

    init: Callable[[PRNGKeyArray], PyTree]
    turns: Mapping[str, Turn]
    shapes: Mapping[str, tuple[tuple[int, ...], str]]
    players: Mapping[str, Player] = dataclasses.field(default_factory=lambda: {"model": Player()})
    changes: Mapping[str, Change] = dataclasses.field(default_factory=dict)
    init_state: Callable[[PyTree], PyTree] = lambda model: None
    frozen: Callable[[], PyTree] = lambda: None
    fixed: tuple[str, ...] = ()
    mix: Callable[[dict[str, Array], PRNGKeyArray], dict[str, Array]] | None = None
    constrained: Callable[[PyTree], PyTree] = lambda model: model
    head: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    new_head: bool = False
    failed: Callable[[Mapping[str, float]], str] | None = None
    sequence: int | None = None

    @classmethod
    def of(
        cls,
        init: Callable[[PRNGKeyArray], PyTree],
        loss: Loss,
        shapes: Mapping[str, tuple[tuple[int, ...], str]],
        **others: Any,
    ) -> "Program":
        """A program of one loss and one player, which has every parameter."""
        return cls(init=init, turns={"main": Turn(loss)}, shapes=shapes, **others)

    def __post_init__(self):
        if not self.turns:
            raise ValueError("Program.turns must have at least one turn: got {}; or use Program.of")
        first = next(iter(self.turns))
        if self.turns[first].every != 1:
            raise ValueError(
                f"Program.turns: the first must be due at every step: got {first!r} with every="
                f"{self.turns[first].every}; put another first"
            )
        moved = {name for turn in self.turns.values() for name in turn.players}
        for name, turn in self.turns.items():
            for player in turn.players:
                if player not in self.players:
                    near = difflib.get_close_matches(player, list(self.players), n=1, cutoff=0)
                    raise ValueError(
                        f"Program.turns[{name!r}].players must be of {', '.join(self.players)}: got {player!r}; "
                        f"nearest: {near[0] if near else 'none'}"
                    )
        for name in self.players:
            if name not in moved:
                raise ValueError(
                    f"Program.players[{name!r}] must have a turn that moves it: got turns of {', '.join(sorted(moved))}"
                    "; add one, or list its parameters in Program.fixed"
                )

    @property
    def loss(self) -> Loss:
        """The loss of the first turn."""
        return next(iter(self.turns.values())).loss

    def due(self, step: int) -> tuple[str, ...]:
        """Names of the turns that are due at a step."""
        return tuple(name for name, turn in self.turns.items() if step % turn.every == 0)

    def pace(self, player: str) -> "Pace":
        """Updates of a player per step."""
        intervals = [turn.every for turn in self.turns.values() if player in turn.players]
        regular = sum(1 for every in intervals if every == 1)
        updates = sum(1 / every for every in intervals)
        return Pace(updates, regular / updates if regular else 1.0)

    def claims(self, model: PyTree) -> dict[str, PyTree]:
        """The parameters of each player: the model with true or false in place of its leaves.

        Raises:
            ValueError: a pattern names no parameter, two players claim one, or none does.
        """
        paths = [path for path, leaf in leaves(model) if _is_parameter(leaf)]
        named = {f"Program.players[{name!r}].params": player.patterns for name, player in self.players.items()}
        owners: dict[str, str] = {}
        for where, patterns in {**named, "Program.fixed": self.fixed}.items():
            try:
                claims = any_of(patterns, paths)
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
            for path in paths:
                if claims(path, None) and (other := owners.setdefault(path, where)) != where:
                    raise ValueError(
                        f"{where} must leave the parameters of others: got {path}, which {other} names too; narrow one "
                        "of the patterns"
                    )
        if left := [path for path in paths if path not in owners]:
            raise ValueError(
                f"Program.players must have every parameter: got none for {left[0]} and {len(left) - 1} more; widen a "
                "player's params, or list it in Program.fixed"
            )
        of = lambda where: mask(model, lambda path, leaf: _is_parameter(leaf) and owners[path] == where)
        return {name: of(where) for name, where in zip(self.players, named)}


def _is_parameter(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) and jnp.issubdtype(leaf.dtype, jnp.inexact)
