"""Patterns over the paths of a tree's leaves."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import pytest

from eqxgen.nn import Selformer, Stack
from train.params.paths import any_of, leaves, mask, matches, named_arrays, names


@pytest.mark.parametrize(
    ("pattern", "path", "leads", "is_it"),
    [
        ("head", "head", True, True),
        ("head", "head.weight", True, False),
        ("head", "header.weight", False, False),
        ("weight", "head.weight", False, False),
        ("*.weight", "head.weight", True, True),
        ("*.weight", "stack.head.weight", False, False),
        ("**.weight", "weight", True, True),
        ("**.weight", "stack.0.head.weight", True, True),
        ("**.weight.**", "stack.weight.0.1", True, True),
        ("stack.**.bias", "stack.bias", True, True),
        ("stack.**.bias", "stack.blocks.mlp.up.bias", True, True),
        ("**.*norm*.scale", "stack.blocks.attention_norm.scale", True, True),
        ("**.*norm*", "encoder.norms.0.scale", True, False),
        ("**.[ab]", "x.b", True, True),
        ("norms.?.scale", "norms.10.scale", False, False),
        ("**", "anything.at.all", True, True),
    ],
)
def test_a_pattern_names_a_path_and_what_lies_below_it(pattern, path, leads, is_it):
    assert matches(pattern, path) is leads
    assert names(pattern, path) is is_it


def test_paths_are_the_fields_and_positions_that_lead_to_a_leaf():
    block = lambda key: Selformer(8, 2, hidden_dim=16, key=key)
    model = {"stack": Stack(block, 2, key=jr.key(0)), "rest": [jnp.ones(2), 3]}
    arrays = named_arrays(model)
    assert arrays["stack.blocks.attention_norm.scale"].shape == (2, 8)
    assert "rest.0" in arrays
    assert "rest.1" not in arrays
    assert dict(leaves(model))["rest.1"] == 3
    assert list(arrays) == [path for path, leaf in leaves(model) if eqx.is_array(leaf)]


def test_a_mask_is_true_where_a_pattern_or_a_predicate_is():
    tree = {"a": {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}, "c": jnp.ones(2)}
    assert mask(tree, "a") == {"a": {"w": True, "b": True}, "c": False}
    assert mask(tree, ["c", "**.b"]) == {"a": {"w": False, "b": True}, "c": True}
    assert mask(tree, lambda path, leaf: leaf.ndim == 2) == {"a": {"w": True, "b": False}, "c": False}
    assert jax.tree.leaves(mask(tree, [])) == [False] * 3


def test_a_pattern_that_names_nothing_is_an_error_with_the_nearest_paths():
    with pytest.raises(ValueError, match=r"must name something: got 'a\.v', .*nearest: a\.w"):
        mask({"a": {"w": jnp.ones(2)}}, "a.v")
    with pytest.raises(ValueError, match="got 'x'"):
        any_of(["a", "x"], ["a.w"])
