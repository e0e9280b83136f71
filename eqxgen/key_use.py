"""Faults in the use of random keys, found in a traced function: keys drawn and never used, keys used twice."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.extend.core import Literal
from jax.extend.source_info_util import summarize

from eqxgen._jaxpr import CALLS

CONSUMES = {"random_bits", "random_split"}
"""Primitives that use a key up; `random_fold_in` makes another one and does not."""


class KeyFault(ValueError):
    """Keys of a function that are drawn and never used, or used twice."""


def check_keys(function: Callable, *args: Any, **kwargs: Any) -> None:
    """Traces a call, compiled or not, and raises where a key that it draws is never used, or any key is used twice.

    A key is drawn by `jax.random.key`, `split`, `fold_in` or an `RNG`, and used where it is drawn from, split, folded,
    returned or given to a primitive that is not known. A split or a draw uses it up; a second one gives numbers that
    are not independent of the first. So does a use in the body of a loop of a key from outside. Keys that are
    arguments need not be used. Nothing is computed; the time is that of tracing.

    `jax.debug_key_reuse(True)` finds a second use in programs that run, also with Python's control flow on values.

    Args:
        function: called as `function(*args, **kwargs)`; arguments that are not arrays stay as they are.

    Raises:
        KeyFault: names each key by the line that draws it.
    """
    faults = key_faults(eqx.filter_make_jaxpr(function)(*args, **kwargs)[0].jaxpr)
    if faults:
        raise KeyFault("\n".join(faults))


def key_faults(jaxpr: Any) -> list[str]:
    """The faults of a traced program, a line each."""
    keys = _Keys()
    keys.use(itertools.chain(*(ids.ravel() for ids in keys.run(jaxpr, [None] * len(jaxpr.invars)) if ids is not None)))
    return keys.faults()


class _Keys:
    """Keys of a program as numbers, arrays of keys as arrays of numbers.

    Attributes:
        drawn: by number, the line that draws the key and its place in the split.
        used: numbers of the keys that are used.
        spent: how often each key is used up.
        places: lines that use each key up.
        inner: the key outside of a loop for each key that its body is given; uses of the latter count as uses of the
            former.
        here: line of the call whose program runs: programs that JAX keeps have no lines of their own.
    """

    def __init__(self):
        self.numbers = itertools.count()
        self.drawn: dict[int, tuple[str, str]] = {}
        self.used: set[int] = set()
        self.spent: Counter[int] = Counter()
        self.places: dict[int, list[str]] = {}
        self.inner: set[int] = set()
        self.here = ""
        self.known: dict[Any, int] = {}  # keys of equal origin: a seed, or a key and the number folded into it

    def fresh(self, shape: tuple[int, ...]) -> np.ndarray:
        return np.array([next(self.numbers) for _ in range(int(np.prod(shape)))], dtype=int).reshape(shape)

    def use(self, numbers: Any) -> None:
        self.used.update(int(number) for number in numbers)

    def spend(self, numbers: Any, where: str, times: int = 1) -> None:
        numbers = [int(number) for number in numbers]
        self.use(numbers)
        for number in numbers:
            self.spent[number] += times
            self.places.setdefault(number, []).append(where)

    def run(self, jaxpr: Any, given: list[Any]) -> list[Any]:
        """Numbers of the results' keys; `given` are those of the arguments. `None` is no key, or one not yet seen."""
        env: dict[Any, Any] = {}
        for var, ids in zip(jaxpr.invars, given):
            env[var] = self.fresh(var.aval.shape) if ids is None and _is_key(var) else ids
        for var in jaxpr.constvars:
            env[var] = self.fresh(var.aval.shape) if _is_key(var) else None
        for equation in jaxpr.eqns:
            read = lambda var: None if isinstance(var, Literal) else env.get(var)
            found = self.step(equation, [read(var) for var in equation.invars], env)
            for var, ids in zip(equation.outvars, found):
                env[var] = self.fresh(var.aval.shape) if ids is None and _is_key(var) else ids
        return [None if isinstance(var, Literal) else env.get(var) for var in jaxpr.outvars]

    def step(self, equation: Any, given: list[Any], env: dict[Any, Any]) -> list[Any]:
        if equation.params.get("differentiated"):
            return self.again(equation, given, env)
        name, where = equation.primitive.name, _line(equation) or self.here
        none: list[Any] = [None] * len(equation.outvars)
        if name == "random_seed":
            return [self.draw((equation.outvars[0].aval.shape), "jax.random.key", where, _value(equation.invars[0]))]
        if name == "random_wrap":
            if given[0] is None:  # an old-style key from outside
                given[0] = np.repeat(self.fresh(equation.outvars[0].aval.shape)[..., None], 2, axis=-1)
                env[equation.invars[0]] = given[0]
            return [given[0][..., 0]]
        if all(ids is None for ids in given) and not _programs(equation):
            return none
        if name == "random_unwrap":
            width = equation.outvars[0].aval.shape[-1]
            return [np.repeat(given[0][..., None], width, axis=-1)]
        if name == "random_clone":
            self.use(given[0].ravel())
            return none
        if name == "random_split":
            self.spend(given[0].ravel(), where)
            return [self.draw(equation.outvars[0].aval.shape, "split", where)]
        if name == "random_fold_in":
            self.use(given[0].ravel())
            folded, of = _value(equation.invars[1]), given[0].ravel()
            same = None if folded is None or len(of) != 1 else (int(of[0]), folded)
            return [self.draw(equation.outvars[0].aval.shape, "fold_in", where, same)]
        if name == "random_bits":
            self.spend(given[0].ravel(), where)
            return none
        if (moved := _moved(equation, given)) is not None:
            return [moved]
        programs = _programs(equation)
        if name in CALLS and len(programs) == 1 and len(programs[0].invars) == len(given):
            return self.within(where, self.run, programs[0], given)
        if name == "cond":
            self.within(where, self.cond, programs, given[1:])
        elif name == "scan":
            self.within(where, self.scan, equation.params, given)
        elif name == "while":
            self.within(where, self.loop, equation.params, given)
        elif programs and all(len(program.invars) == len(given) for program in programs):
            for program in programs:  # such as that of `shard_map`, whose arguments may be parts
                self.within(where, self.inside, program, given, [1] * len(given))
        else:
            for ids in given:
                self.use(() if ids is None else ids.ravel())
        return none

    def again(self, equation: Any, given: list[Any], env: dict[Any, Any]) -> list[Any]:
        """The second run of a rematerialised program, which gives the numbers of the first: nothing is used up."""
        spent, drawn = self.spent.copy(), self.drawn.copy()
        params = {name: value for name, value in equation.params.items() if name != "differentiated"}
        found = self.step(equation.replace(params=params), given, env)
        self.spent, self.drawn = spent, drawn
        return found

    def within(self, where: str, method: Callable, *args: Any) -> Any:
        outer, self.here = self.here, where
        try:
            return method(*args)
        finally:
            self.here = outer

    def draw(self, shape: tuple[int, ...], how: str, where: str, same: Any = None) -> np.ndarray:
        """New keys; keys of one origin, such as one seed, are one."""
        if same is not None and int(np.prod(shape)) == 1:
            number = self.known.get((how, same))
            if number is not None:
                return np.full(shape, number)
        ids = self.fresh(shape)
        for place, number in enumerate(ids.ravel()):
            several = f"key {place} of {ids.size} of " if ids.size > 1 else ""
            self.drawn[int(number)] = (where, f"{several}{how}")
        if same is not None and ids.size == 1:
            self.known[how, same] = int(ids.ravel()[0])
        return ids

    def cond(self, branches: list[Any], given: list[Any]) -> None:
        """One branch runs: a key is used up as often as in the branch that does so most."""
        before, after = self.spent.copy(), self.spent.copy()
        for branch in branches:
            self.spent = before.copy()
            for ids in self.run(branch, given):
                self.use(() if ids is None else ids.ravel())
            after |= self.spent
        self.spent = after

    def scan(self, params: Any, given: list[Any]) -> None:
        consts, carry = params["num_consts"], params["num_carry"]
        times = [params["length"]] * consts + [1] * (len(given) - consts)
        self.inside(params["jaxpr"].jaxpr, given, times, rows=consts + carry)

    def loop(self, params: Any, given: list[Any]) -> None:
        first, second = params["cond_nconsts"], params["body_nconsts"]
        tests, bodies, carry = given[:first], given[first : first + second], given[first + second :]
        for name, consts in (("cond_jaxpr", tests), ("body_jaxpr", bodies)):
            self.inside(params[name].jaxpr, consts + carry, [2] * len(consts) + [1] * len(carry))

    def inside(self, program: Any, given: list[Any], times: list[int], rows: int | None = None) -> None:
        """A program that runs `times` with each argument; from argument `rows` on, with one row of it after another."""
        own = [None if ids is None else self.fresh(var.aval.shape) for ids, var in zip(given, program.invars)]
        for ids in own:
            self.inner.update(() if ids is None else ids.ravel().tolist())
        for ids in self.run(program, own):
            self.use(() if ids is None else ids.ravel())
        for place, (outer, new) in enumerate(zip(given, own)):
            if outer is None or new is None:
                continue
            alike = outer.shape == new.shape or (rows is not None and place >= rows)
            pairs = (
                zip(np.broadcast_to(new, outer.shape).ravel(), outer.ravel())
                if alike
                else itertools.product(new.ravel(), outer.ravel())
            )
            for inner, number in ((int(one), int(other)) for one, other in pairs):
                if inner in self.used:
                    self.used.add(number)
                if count := self.spent[inner]:
                    self.spent[number] += count * times[place]
                    again = " in a loop" if times[place] > 1 else ""
                    self.places.setdefault(number, []).extend(at + again for at in self.places[inner])

    def faults(self) -> list[str]:
        unused: dict[str, Counter[str]] = {}
        for number, (where, what) in self.drawn.items():
            if number not in self.used:
                unused.setdefault(where, Counter())[what] += 1
        times = lambda what, count: what if count == 1 else f"{what} ({count} times)"
        named = lambda found: ", ".join(times(*item) for item in found.items())
        lines = [f"never used: {named(what)} at {where}; draw no more than are used" for where, what in unused.items()]
        for number, count in self.spent.items():
            if count > 1 and number not in self.inner:
                where, what = self.drawn.get(number, ("", "a key from outside"))
                key = f"{what} at {where}" if where else what
                places = " and ".join(dict.fromkeys(self.places[number]))
                lines.append(f"used twice: {key}, by {places}; split it, one key for each use")
        return lines


def _is_key(var: Any) -> bool:
    return jax.dtypes.issubdtype(var.aval.dtype, jax.dtypes.prng_key) if hasattr(var.aval, "dtype") else False


def _line(equation: Any) -> str:
    """File, line and function of an equation; empty where JAX has none."""
    return summarize(equation.source_info) if equation.source_info.traceback is not None else ""


def _value(var: Any) -> Any:
    """The number of a literal; None where it is computed."""
    return var.val.item() if isinstance(var, Literal) and np.ndim(var.val) == 0 else None


def _moved(equation: Any, given: list[Any]) -> np.ndarray | None:
    """The keys of a result that only moves them; None for another primitive."""
    ids, params = given[0] if given else None, equation.params
    if ids is None:
        return None
    match equation.primitive.name:
        case "slice":
            strides = params["strides"] or (1,) * ids.ndim
            parts = zip(params["start_indices"], params["limit_indices"], strides)
            return ids[tuple(slice(*part) for part in parts)]
        case "squeeze":
            return np.squeeze(ids, params["dimensions"])
        case "reshape":
            return ids.reshape(params["new_sizes"])
        case "transpose":
            return ids.transpose(params["permutation"])
        case "rev":
            return np.flip(ids, params["dimensions"])
        case "copy" | "sharding_constraint" | "stop_gradient" | "optimization_barrier" | "pcast" | "pvary":
            return ids if len(given) == 1 else None
        case "broadcast_in_dim":
            shape, dims = params["shape"], params["broadcast_dimensions"]
            spread = np.ones(len(shape), int)
            spread[list(dims)] = ids.shape
            return np.broadcast_to(ids.reshape(spread), shape)
        case "concatenate":
            return None if any(part is None for part in given) else np.concatenate(given, params["dimension"])
        case "dynamic_slice":
            starts = [_value(var) for var in equation.invars[1:]]
            if any(start is None for start in starts):
                return None
            sizes = params["slice_sizes"]
            clamped = [min(max(s, 0), n - size) for s, size, n in zip(starts, sizes, ids.shape)]
            return ids[tuple(slice(s, s + size) for s, size in zip(clamped, sizes))]
        case _:
            return None


def _programs(equation: Any) -> list[Any]:
    """Programs inside an equation."""

    def each() -> Iterator[Any]:
        for value in equation.params.values():
            for part in value if isinstance(value, (tuple, list)) else (value,):
                part = getattr(part, "jaxpr", part)
                if hasattr(part, "eqns"):
                    yield part

    return list(each())
