"""The summary of a model: every layer's shapes, parameters and operations, without running it."""

import xml.etree.ElementTree as ET

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import pytest

import eqxgen
from eqxgen import nn
from eqxgen.configs import MaskGITConfig
from eqxgen.models.maskgit import MaskGIT

KEY = jr.key(0)
SIZES = MaskGITConfig(dim=16, depth=5, heads=2, hidden_dim=24)


def maskgit(key=KEY):
    return MaskGIT(9, 7, 3, SIZES, key=key)


def of_maskgit(model, **options):
    return eqxgen.summary(model, jax.ShapeDtypeStruct((9,), jnp.int32), jax.ShapeDtypeStruct((), jnp.int32), **options)


@pytest.fixture(scope="module")
def found():
    return of_maskgit(maskgit(), inference=True)


def rows(summary):
    return {row.path: row for row in summary.rows}


def test_an_mlp_counts_two_operations_for_each_weight_and_token():
    found = eqxgen.summary(nn.MLP(8, 12, key=KEY), jax.ShapeDtypeStruct((5, 8), jnp.bfloat16))
    table = rows(found)
    assert (table["up"].flops, table["down"].flops, found.flops) == (2 * 5 * 8 * 12, 2 * 5 * 12 * 8, 4 * 5 * 8 * 12)
    assert found.parameters == 8 * 12 + 12 + 12 * 8 + 8
    assert (table["up"].out, table["activation"].flops) == ("bfloat16[5,12]", 0)


def test_a_maskgit_counts_what_a_hand_does(found):
    dim, hidden, depth, seq = 16, 24, 5, 10
    table = rows(found)
    attention = 2 * seq * dim * 4 * dim + 2 * 2 * seq * seq * dim
    mlp = 2 * 2 * seq * dim * hidden
    assert table["stack.blocks.attention"].flops == depth * attention
    assert table["stack.blocks.mlp"].flops == depth * mlp
    head, logits = 2 * 9 * dim * dim, 2 * 9 * dim * 7
    assert (table["head"].flops, found.flops) == (head, depth * (attention + mlp) + head + logits)
    assert found.parameters == sum(x.size for x in jax.tree.leaves(eqx.filter(maskgit(), eqx.is_inexact_array)))
    assert (table["stack.blocks"].name, table["stack.blocks"].out) == ("5 × TransformerBlock", "float32[10,16]")
    assert table["stack.blocks"].parameters == table["stack"].parameters > table["stack.blocks.mlp"].parameters > 0


def test_convolutions_count_by_groups_stride_and_kernel():
    layer = nn.Convolution(4, 6, kernel=3, stride=2, groups=2, padding=1, key=KEY)
    found = eqxgen.summary(layer, jnp.ones((8, 10, 4)))
    assert found.flops == 2 * (4 * 5 * 6) * 9 * 2
    back = eqx.nn.ConvTranspose2d(4, 6, kernel_size=4, stride=2, padding=1, key=KEY)
    # Each entry of the input meets each of the kernel once.
    assert eqxgen.summary(back, jnp.ones((4, 8, 8))).flops == 2 * (8 * 8 * 4) * 16 * 6


def test_nothing_is_computed_and_shapes_will_do(found):
    abstract = of_maskgit(eqx.filter_eval_shape(maskgit, KEY), inference=True)
    assert abstract == found
    trained = of_maskgit(maskgit(), key=jax.eval_shape(lambda: KEY))
    assert trained.flops == found.flops


def test_tied_arrays_count_once():
    first = nn.Projection(4, 4, key=KEY)
    tied = nn.Sequential(first, jax.nn.relu, eqx.tree_at(lambda p: p.bias, first, jnp.ones(4)))
    found = eqxgen.summary(tied, jnp.ones(4))
    assert found.parameters == 16 + 4 + 4
    assert [row.parameters for row in found.rows] == [24, 20, 4]
    assert found.bytes == 4 * 24


def test_layers_in_loops_maps_branches_and_compiled_functions_count_as_often_as_they_run():
    class Net(eqx.Module):
        layer: nn.Projection
        unused: nn.Projection

        def __call__(self, x):
            step = lambda x, _: (self.layer(x), None)
            x, _ = jax.lax.scan(step, x, length=3)
            x = jax.jit(jax.vmap(self.layer))(jnp.stack([x, x]))[0]
            return jax.lax.cond(x[0] > 0, lambda x: self.layer(x), lambda x: x, x)

    one = 2 * 4 * 4
    found = eqxgen.summary(Net(nn.Projection(4, 4, key=KEY), nn.Projection(4, 4, key=KEY)), jnp.ones(4))
    assert found.flops == (3 + 2 + 1) * one == rows(found)["layer"].flops
    assert (rows(found)["unused"].out, rows(found)["unused"].flops) == ("-", None)


def test_a_summary_leaves_the_model_and_its_classes_as_they_were():
    model, x = maskgit(), jnp.zeros(9, jnp.int32)
    before, call = jax.tree.structure(model), MaskGIT.__call__
    of_maskgit(model, inference=True)
    assert (jax.tree.structure(model), MaskGIT.__call__) == (before, call)
    assert model(x, jnp.asarray(0), inference=True).shape == (9, 7)


def test_the_table_is_aligned_and_ends_in_the_totals(found):
    lines = str(found).splitlines()
    assert lines[0].split() == ["layer", "class", "output", "parameters", "FLOPs"]
    assert len({len(line) for line in lines[:-1]}) == 1
    assert lines[-1].startswith(f"{found.parameters:,} parameters, ")
    assert any(line.split()[:2] == ["stack.blocks.mlp.up", "Projection"] for line in lines)


def test_the_picture_is_whole_in_itself_and_its_boxes_lie_within_one_another(found, tmp_path):
    found.save(tmp_path / "model.svg")
    root = ET.parse(tmp_path / "model.svg").getroot()
    name = "{http://www.w3.org/2000/svg}"
    width, height = float(root.get("width")), float(root.get("height"))
    boxes = [
        [float(box.get(side)) for side in ("x", "y", "width", "height")]
        for box in root.iter(f"{name}rect")
        if box.get("x")
    ]
    assert len(boxes) == sum(row.flops is not None for row in found.rows)
    for i, (x, y, w, h) in enumerate(boxes):
        assert 0 <= x <= x + w <= width
        assert 0 <= y <= y + h <= height
        for x2, y2, w2, h2 in boxes[:i]:
            apart = x + w <= x2 or x2 + w2 <= x or y + h <= y2 or y2 + h2 <= y
            assert apart or (x2 <= x and x + w <= x2 + w2 and y2 <= y and y + h <= y2 + h2)
    texts = [text.text for text in root.iter(f"{name}text")]
    assert "blocks: 5 × TransformerBlock" in texts
    assert not [node for node in root.iter() if any("href" in key or "src" in key for key in node.attrib)]


def test_it_is_saved_by_its_ending(found, tmp_path):
    found.save(tmp_path / "model.txt")
    assert (tmp_path / "model.txt").read_text(encoding="utf-8") == f"{found}\n"
    with pytest.raises(
        ValueError, match=r"path must end in \.svg for the picture or .txt for the table: got 'model.png'"
    ):
        found.save(tmp_path / "model.png")
    with pytest.raises(
        ValueError, match=r"model must be an eqx.Module with a __call__: got builtin_function_or_method"
    ):
        eqxgen.summary(len, jnp.ones(3))
