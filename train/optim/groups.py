"""Treatment of each parameter by its path, its shape and its layer."""

import dataclasses
from collections.abc import Sequence

import jax
from jaxtyping import PyTree

from eqxgen.nn import Stack

from .._errors import UsageError
from ..config.optim import OptimConfig
from ..params.conventions import ENDS
from ..params.paths import any_of, leaves, matches


@dataclasses.dataclass(frozen=True)
class Group:
    """Treatment of one array of parameters.

    Attributes:
        path: its names from the model down, with dots.
        shape: its shape.
        stacked: whether the first axis counts the layers of a `Stack`.
        decayed: whether weight decay shrinks it.
        hidden: whether it is a matrix or kernel between hidden features, which muon makes orthogonal.
        rates: multiplier of the learning rate, of each layer where it is stacked.
    """

    path: str
    shape: tuple[int, ...]
    stacked: bool
    decayed: bool
    hidden: bool
    rates: tuple[float, ...]

    @property
    def matrix(self) -> bool:
        """True where one layer's part has two axes or more."""
        return len(self.shape) - self.stacked >= 2


def groups_of(config: OptimConfig, params: PyTree) -> PyTree:
    """The tree with a `Group` in place of each array. A part of a model's tree gives the same groups as the whole, but
    for `layer_decay`.
    """
    named, treedef = leaves(params), jax.tree.structure(params)
    paths = [path for path, _ in named]
    stacks = _stacks(params)
    levels, top = _levels(paths, stacks)
    groups = []
    for (path, leaf), layers in zip(named, levels):
        stacked = any(path.startswith(f"{stack}.blocks.") for stack, _ in stacks)
        matrix = leaf.ndim - stacked >= 2
        factor = next((factor for pattern, factor in config.multipliers() if matches(pattern, path)), 1.0)
        rates = tuple(factor * config.layer_decay ** (top - layer) for layer in layers)
        decayed = matrix and not _named(path, config.undecayed)
        groups.append(Group(path, tuple(leaf.shape), stacked, decayed, matrix and not _named(path, ENDS), rates))
    return jax.tree.unflatten(treedef, groups)


def check_groups(config: OptimConfig, params: PyTree) -> None:
    """Raises `UsageError` where a pattern matches no parameter, or `layer_decay` is asked of a model without layers."""
    for flag, patterns in ("undecayed", config.undecayed), ("rates", [pattern for pattern, _ in config.multipliers()]):
        try:
            any_of(patterns, [path for path, _ in leaves(params)])
        except ValueError as error:
            raise UsageError(f"--{config.FLAG}.{flag}: {error}; --print-groups lists them all") from None
    if config.layer_decay != 1 and not _stacks(params):
        raise UsageError(
            f"--{config.FLAG}.layer-decay {config.layer_decay} is for models with a stack of layers, which this lacks: "
            "leave it out"
        )


def table(groups: PyTree) -> str:
    """Path, shape, whether a matrix of the inside, weight decay and multiplier of the learning rate, a line for each
    array.
    """
    rows = [("parameter", "shape", "group", "decay", "rate")]
    for group in jax.tree.leaves(groups):
        kind = ("hidden" if group.hidden else "end") if group.matrix else "vector"
        low, high = f"{min(group.rates):.4g}", f"{max(group.rates):.4g}"
        rates = low if low == high else f"{low} to {high}"
        rows.append(
            (
                group.path,
                str(group.shape),
                f"{kind}, by layer" if group.stacked else kind,
                "yes" if group.decayed else "no",
                rates,
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def _stacks(params: PyTree) -> list[tuple[str, int]]:
    """Path and depth of each stack."""
    nodes = leaves(params, is_leaf=lambda node: isinstance(node, Stack))
    return [(path, node.depth) for path, node in nodes if isinstance(node, Stack)]


def _named(path: str, patterns: Sequence[str]) -> bool:
    return any(matches(pattern, path) for pattern in patterns)


def _levels(paths: list[str], stacks: list[tuple[str, int]]) -> tuple[list[tuple[int, ...]], int]:
    """Layer of each array: 0 before the first stack, in the order of the fields, one more after the last;
    and that last.
    """
    top, passed, found = sum(depth for _, depth in stacks) + 1, 0, []
    open_: str | None = None
    for path in paths:
        inside = next((stack for stack in stacks if path.startswith(f"{stack[0]}.blocks.")), None)
        if inside is None:
            open_ = None
            found.append((top if passed == top - 1 and stacks else passed,))
            continue
        if inside[0] != open_:
            open_, passed = inside[0], passed + inside[1]
        found.append(tuple(range(passed - inside[1] + 1, passed + 1)))
    return found, top
