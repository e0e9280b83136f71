"""Faults of trees and of keys, each found and named; the functions on modules."""

import functools
import re
import runpy

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

from eqxgen import RNG, check_keys, check_tree, nn, tree
from eqxgen.key_use import KeyFault
from tests.arrays import drawn
from tests.devices import ROOT
from train import freeze, parameters, select_states, update_states
from train.config.optim import EmaConfig
from train.engine.recipe import Program

PAGE = (ROOT / "docs" / "pax.md").read_text(encoding="utf-8")


def test_the_page_runs_from_top_to_bottom(tmp_path):
    path = tmp_path / "pax.py"
    path.write_text("\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)), encoding="utf-8")
    runpy.run_path(str(path))


class Leaf(eqx.Module):
    weight: jax.Array
    rate: float = eqx.field(static=True, default=0.5)
    inference: bool = False


class Holder(eqx.Module):
    first: object
    second: object = None
    static: object = eqx.field(static=True, default=None)


class Opaque:
    """An object that is no pytree."""

    def __init__(self, value):
        self.value = value

    def method(self, x):
        return self.value * x


def leaf(number: int = 0) -> Leaf:
    return Leaf(drawn((3,), number))


def closed(value):
    return lambda x: value * x


class Slotted:
    __slots__ = ("value",)

    def __init__(self):
        self.value = ARRAY


@jax.tree_util.register_pytree_node_class
class Fresh:
    """A tree whose parts are new lists whenever it is flattened."""

    def __init__(self, *arrays):
        self.arrays = arrays

    def tree_flatten(self):
        return [[x] for x in self.arrays], None

    @classmethod
    def tree_unflatten(cls, _, parts):
        return cls(*(part[0] for part in parts))


ARRAY = drawn((3,), 7)
ONE = leaf()
FAULTS = {
    "an array": (
        lambda: Holder(ARRAY, [1, ARRAY]),
        r"first and second\.1 are one object, an array: .* eqx\.nn\.Shared",
    ),
    "a module": (lambda: Holder(ONE, {"a": ONE}), r"^first and second\.a are one object, a Leaf: [^\n]*$"),
    "a list": (lambda: Holder(*[[leaf()]] * 2), r"^first and second are one object, a list: [^\n]*$"),
    "an array of numpy": (lambda: (np.asarray(ARRAY),) * 2, "0 and 1 are one object, an array"),
    "a module in a static field": (
        lambda: Holder(1, leaf(), {"net": ONE}),
        r"static\.net\.weight is an array in the static field static: neither trained nor saved; make it a field",
    ),
    "an array of numpy in a static field": (lambda: Holder(1, None, (np.ones(2),)), r"static\.0 is an array in"),
    "a closure": (lambda: Holder(closed(ARRAY)), r"first\.value is an array in the leaf first: neither trained"),
    "a partial": (
        lambda: Holder(1, functools.partial(jnp.add, Opaque(ARRAY))),
        r"second\.1?\.?.*is an array in the leaf",
    ),
    "a method": (lambda: Holder(Opaque([ARRAY]).method), r"first\.__self__\.value\.0 is an array in the leaf first"),
    "a default by name": (
        lambda: Holder(1, None, lambda x, *, w=ARRAY: x),
        r"static\.w is an array in the static field",
    ),
    "a slot": (lambda: Holder(Slotted()), r"first\.value is an array in the leaf first"),
    "a compiled closure": (
        lambda: Holder(jax.jit(closed(ARRAY))),
        r"first\.__wrapped__\.value is an array in the leaf",
    ),
    "a default": (lambda: Holder(1, None, lambda x, w=ARRAY: x), r"static\.default0 is an array in the static field"),
}


@pytest.mark.filterwarnings("ignore:A JAX array is being set as static")
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_a_tree_is_named_by_its_paths(name):
    make, message = FAULTS[name]
    with pytest.raises(ValueError, match=message):
        check_tree(make())


def test_faults_are_found_in_traced_trees_and_blocks_built_together():
    def block(key):
        made = Leaf(jr.normal(key, (3,)))
        return Holder(made, made)

    def built(key):
        stack = eqx.filter_vmap(block)(jr.split(key, 2))
        check_tree(stack)
        return stack

    with pytest.raises(ValueError, match=r"^first\.weight and second\.weight are one object, an array: "):
        eqx.filter_eval_shape(built, jr.key(0))


def test_a_recipe_refuses_a_model_with_a_fault():
    from train.engine.step import Setup, abstract_state
    from train.optim.ema import averages
    from train.parallel import make_mesh

    def loss(model, batch, keys, context):
        raise AssertionError("not reached")

    program = Program.of(lambda key: Holder(*[Leaf(jr.normal(key, (3,)))] * 2), loss, {})
    setup = Setup(program, {}, averages(EmaConfig(), 4), make_mesh("", jax.devices()[:1]))
    with pytest.raises(ValueError, match="first and second are one object, a Leaf"):
        abstract_state(setup)


def test_trees_without_a_fault_are_passed():
    tied = eqx.nn.Shared((leaf(), leaf()), lambda pair: pair[1].weight, lambda pair: pair[0].weight)
    numbers = np.arange(3.0)
    check_tree(Holder([tied, leaf()], {"f": jax.nn.gelu, "g": closed(numbers), "h": None}, ("same", 3, jnp.tanh)))
    check_tree(Holder((), (), {"a": (), "b": Opaque("text")}))
    check_tree([Fresh(drawn((3,), row), drawn((3,), row + 9)) for row in range(9)])
    empty = nn.Dropout(0.1)
    check_tree([empty, empty])


def split_three(key):
    first, _, third = jr.split(key, 3)
    return jr.normal(first) + jr.normal(third)


def sliced(key):
    keys = jr.split(key, 4)
    return jr.normal(keys[0]) + jax.vmap(jr.normal)(keys[2:]).sum()


def stream(key):
    rng = RNG(key)
    next(rng)
    return jr.normal(next(rng))


def two_streams(key):
    return jr.normal(next(RNG(key))) + jr.normal(next(RNG(key)))


def looped(key):
    add = lambda total, own: (total + jr.normal(own) + jr.normal(key), None)
    return jax.lax.scan(add, jnp.zeros(()), jr.split(jr.fold_in(key, 1), 3))[0]


def turned(key):
    return jax.lax.while_loop(lambda x: x < 3, lambda x: x + jr.uniform(key), jnp.zeros(()))


def branches(key):
    first, second = jr.split(key)
    return jax.lax.cond(jr.bernoulli(first), jr.normal, lambda key: jr.normal(first), second)


KEYS = {
    "one of a split": (
        split_three,
        r"^never used: key 1 of 3 of split at .*test_tree.py:\d+:\d+ \(split_three\); draw no",
    ),
    "one of an array": (sliced, r"^never used: key 1 of 4 of split at .*\(sliced\)[^\n]*$"),
    "one of a stream": (stream, r"^never used: fold_in at [^\n]*$"),
    "streams of one key": (two_streams, r"^used twice: fold_in at .* and .*; split it, one key for each use$"),
    "a key from outside a loop": (looped, r"^used twice: a key from outside, by .* in a loop"),
    "a key of a while loop": (turned, r"^used twice: a key from outside, by .* in a loop"),
    "a key and a branch": (branches, r"^used twice: key 0 of 2 of split"),
    "equal seeds": (lambda key: jr.normal(jr.key(3)) + jr.normal(jr.key(3)), "^used twice: jax.random.key at"),
}


@pytest.mark.parametrize("kind", ["eager", "compiled"])
@pytest.mark.parametrize("name", KEYS)
def test_a_fault_of_keys_is_named_by_its_line(name, kind):
    function, message = KEYS[name]
    with pytest.raises(KeyFault, match=message):
        check_keys(jax.jit(function) if kind == "compiled" else function, jr.key(0))


def test_old_keys_are_keys_too():
    with pytest.raises(KeyFault, match=r"^never used: key 1 of 3 of split"):
        check_keys(split_three, jr.PRNGKey(0))


def fresh(key):
    keys = jr.split(key, 3)
    first = jax.lax.scan(lambda x, own: (x + jr.normal(own), None), jnp.zeros(()), jr.split(keys[0], 4))[0]
    second = jax.lax.cond(first > 0, jr.normal, lambda key: 2 * jr.normal(key), keys[1])

    def body(state):
        key, x = state
        key, own = jr.split(key)
        return key, x + jr.uniform(own)

    return first, second, jax.lax.while_loop(lambda state: state[1] < 2, body, (keys[2], second))


def drawn_twice(key, x):
    """The gradient of its rematerialised form draws both numbers again."""
    first, second = jr.split(key)
    return (jr.normal(first) * x) ** 2 + jr.normal(second)


def test_keys_used_once_are_passed():
    check_keys(fresh, jr.key(0))
    check_keys(lambda key: jr.split(key), jr.key(0))
    check_keys(lambda key: jr.normal(key) + jax.jit(lambda: jnp.ones(()))(), jr.key(0))  # a program without arguments
    check_keys(jax.grad(jax.checkpoint(drawn_twice), argnums=1), jr.key(0), 2.0)
    check_keys(lambda key: nn.MLP(4, dropout=0.1, key=key)(jnp.ones((2, 4)), key=jr.fold_in(key, 9)), jr.key(0))


def test_a_function_is_applied_from_the_inside_out():
    model = Holder([leaf(1), leaf(2)], {"a": leaf(3)}, "static")
    order = []

    def quieter(module):
        order.append(type(module).__name__)
        return Leaf(2 * module.weight, module.rate / 2) if isinstance(module, Leaf) else module

    found = tree.apply(model, quieter)
    assert order == ["Leaf"] * 3 + ["Holder"]
    assert (found.first[1].rate, found.second["a"].rate, found.static) == (0.25, 0.25, "static")
    np.testing.assert_array_equal(found.second["a"].weight, 2 * model.second["a"].weight)
    with pytest.raises(TypeError, match=r"apply: the function must give a module: got None for first\.0"):
        tree.apply(model, lambda module: None)


def test_the_mode_of_a_model_is_one():
    model = Holder([leaf(1), leaf(2)], leaf(3))
    assert tree.training(model)
    assert not tree.training(eqx.nn.inference_mode(model))
    mixed = eqx.tree_at(lambda model: model.first[1], model, replace_fn=eqx.nn.inference_mode)
    with pytest.raises(ValueError, match=r"one mode: got first\.0 in training and first\.1 in inference"):
        tree.training(mixed)
    with pytest.raises(ValueError, match="field `inference` must be in the tree"):
        tree.training(Holder(1))


def test_parameters_and_states_part_a_model():
    model = Holder({"a": drawn((2,)), "b": jnp.arange(3)}, freeze(leaf(1)))
    states = select_states(model)
    assert states.first["a"] is None
    assert parameters(model).first["b"] is None
    moved = jax.tree.map(lambda x: x + 1, states)
    found = update_states(model, Holder(moved.first | {"a": 5 + model.first["a"]}, freeze(moved.second)))
    np.testing.assert_array_equal(found.first["a"], model.first["a"])
    np.testing.assert_array_equal(found.first["b"], model.first["b"] + 1)
    np.testing.assert_array_equal(found.second.weight.value, model.second.weight.value + 1)
    with pytest.raises(ValueError, match=r"first\.b must be int32, a state: got float32; cast it"):
        update_states(model, eqx.tree_at(lambda model: model.first["b"], model, jnp.ones(3)))
    with pytest.raises(ValueError, match=r"first\.b must be int32\[3\]: got int32\[4\]"):
        update_states(model, eqx.tree_at(lambda model: model.first["b"], model, jnp.arange(4)))
