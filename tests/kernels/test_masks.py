"""Masks: what they allow, and that what they say of a block is true of its pairs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bench.ops.attention_shapes import MASKS, Attention
from kernels import masks
from kernels.attention import checks, schedule
from kernels.attention.problem import unsqueeze

CASE = Attention(batch=3, q_seq=37, kv_seq=53, heads=2)


def pairs(mask, case=CASE):
    bound = checks.bound_mask(mask, (case.batch,), case.heads, case.q_seq, case.kv_seq)
    i, j = (
        np.arange(case.q_seq, dtype=np.int32).reshape(1, 1, -1, 1),
        np.arange(case.kv_seq, dtype=np.int32).reshape(1, 1, 1, -1),
    )
    views = [unsqueeze(x, axes) for axes, x in zip(bound.axes, bound.arrays())]
    return bound, np.broadcast_to(bound.allowed(i, j, *views), (case.batch, case.heads, case.q_seq, case.kv_seq))


def made(name, seed=0):
    return MASKS[name](np.random.default_rng(seed), CASE)


BLOCKS = ((16, 16), (5, 8), (37, 53))


def check_blocks(mask):
    bound, allowed = pairs(mask)
    # Compiled whole, which is faster than each operation alone.
    bounds = lambda mask: [schedule.block_bounds(mask, 37, 53, *sides) for sides in BLOCKS]
    for (q_block, kv_block), (active, full) in zip(BLOCKS, jax.tree.map(np.asarray, jax.jit(bounds)(bound))):
        for qi in range(active.shape[2]):
            for kj in range(active.shape[3]):
                tile = allowed[:, :, qi * q_block : (qi + 1) * q_block, kj * kv_block : (kj + 1) * kv_block]
                assert not (tile.any((2, 3)) & ~active[:, :, qi, kj]).any()
                assert not (~tile.all((2, 3)) & full[:, :, qi, kj]).any()


@pytest.mark.parametrize("name", MASKS)
def test_no_block_with_an_allowed_pair_is_skipped_and_none_with_a_masked_pair_is_taken_whole(name):
    check_blocks(made(name))


@pytest.mark.parametrize("left", MASKS)
@pytest.mark.parametrize("right", ["segments", "pattern", "window"])
def test_joined_masks_allow_what_both_or_either_allows(left, right):
    a, b = made(left), made(right, 1)
    np.testing.assert_array_equal(pairs(a & b)[1], pairs(a)[1] & pairs(b)[1])
    np.testing.assert_array_equal(pairs(a | b)[1], pairs(a)[1] | pairs(b)[1])
    check_blocks((a & b) | masks.Window(0, 0))


def test_each_mask_allows_what_its_docstring_says():
    i, j = np.indices((37, 53))
    same = lambda mask, want: np.testing.assert_array_equal(pairs(mask)[1][0, 0], want)
    same(masks.Causal(), j <= i)
    same(masks.Causal(16), j <= i + 16)
    same(masks.Window(3, 1), (j >= i - 3) & (j <= i + 1))
    same(masks.Window(None, 0), j <= i)
    same(masks.Window(None, None), i >= 0)
    same(masks.PrefixLM(9), (j <= i) | (j < 9))
    same(masks.Lengths(5, None), i < 5)
    same(masks.Lengths(None, 7), j < 7)
    same(masks.Dense(j % 3 == 0), j % 3 == 0)
    same(masks.Segments(np.arange(37) // 4, np.arange(53) // 4), i // 4 == j // 4)
    p, q = i // 8, j // 8
    same(masks.BlockSparse(np.indices((5, 7)).sum(0) % 2 == 0, 8), (p + q) % 2 == 0)


def nearest(size, kernel, dilation):
    """Along one axis: of the positions of a query's residue, the run of `kernel` around it that stays inside."""
    seen = np.zeros((size, size), bool)
    for query in range(size):
        alike = [place for place in range(size) if place % dilation == query % dilation]
        starts = range(len(alike) - kernel + 1)
        start = min(starts, key=lambda start: abs(alike.index(query) - kernel // 2 - start))
        seen[query, alike[start : start + kernel]] = True
    return seen


@pytest.mark.parametrize(
    ("shape", "kernel", "dilation"),
    [
        ((37,), (5,), (1,)),
        ((37,), (4,), (3,)),
        ((5, 7), (3, 4), (1, 1)),
        ((6, 7), (2, 3), (3, 2)),
        ((3, 4, 3), (2,) * 3, (1,) * 3),
    ],
)
def test_a_neighborhood_is_that_of_each_axis_in_the_whole_and_by_blocks(shape, kernel, dilation):
    mask, count = masks.Neighborhood(shape, kernel, dilation), int(np.prod(shape))
    wanted = np.ones((1, 1), bool)
    for numbers in zip(shape, kernel, dilation):
        wanted = np.kron(wanted, nearest(*numbers))
    assert (wanted.sum(1) == np.prod(kernel)).all()
    bound, found = pairs(mask, Attention(q_seq=count, kv_seq=count, heads=1))
    np.testing.assert_array_equal(found[0, 0], wanted)
    np.testing.assert_array_equal(mask.matrix(), wanted)
    for q_block, kv_block in ((4, 8), (1, 1), (16, 5)):
        active, full = schedule.block_bounds(bound, count, count, q_block, kv_block)
        assert isinstance(active, np.ndarray)
        assert isinstance(full, np.ndarray)
        for (_, _, qi, kj), is_active in np.ndenumerate(active):
            tile = wanted[qi * q_block : (qi + 1) * q_block, kj * kv_block : (kj + 1) * kv_block]
            assert is_active or not tile.any()
            assert not full[0, 0, qi, kj] or tile.all()


def test_a_block_of_a_neighborhood_computes_its_own_keys_and_those_beside():
    bound, _ = pairs(masks.Neighborhood(1024, 64), Attention(q_seq=1024, kv_seq=1024, heads=1))
    active, _ = schedule.block_bounds(bound, 1024, 1024, 64, 64)
    assert (active.sum(-1) <= 3).all()


def test_patterns_of_sparse_attention():
    i, j = np.indices((6, 6))
    strided = masks.BlockSparse.strided(6, block=4, stride=3).pattern.matrix
    np.testing.assert_array_equal(strided, (j <= i) & ((i == j) | (j % 3 == 2)))
    local = masks.BlockSparse.local_global(6, block=4).pattern.matrix
    np.testing.assert_array_equal(local, (abs(i - j) <= 1) | (i == 0) | (j == 0))


def test_half_the_blocks_of_a_causal_mask_are_active_and_those_of_the_diagonal_partial():
    active, full = schedule.block_bounds(masks.Causal(), 64, 64, 8, 8)
    assert isinstance(active, np.ndarray)
    assert active.sum() == 36
    assert full.sum() == 28
    entries, counts = schedule.entries(active, full)
    np.testing.assert_array_equal(counts[0, 0], np.arange(1, 9))
    assert (entries[0, 0, :, 0] // 2 == 0).all()


def test_masks_are_pytrees_whose_integers_are_part_of_the_program():
    assert jax.tree.leaves(masks.Causal(3)) == []
    assert len(jax.tree.leaves(masks.Causal(np.arange(3)) & masks.Window(1, 1))) == 1
    assert jax.tree.structure(masks.Causal(3)) != jax.tree.structure(masks.Causal(4))
    pattern = np.eye(3, dtype=bool)
    assert jax.tree.structure(masks.BlockSparse(pattern, 2)) == jax.tree.structure(masks.BlockSparse(pattern.copy(), 2))
    doubled = jax.tree.map(lambda x: x * 2, masks.Segments(jnp.arange(4)))
    np.testing.assert_array_equal(doubled.q_ids, np.arange(4) * 2)


WRONG = [
    (lambda: masks.Neighborhood(8, 0), ValueError, r"kernel must be positive ints: got 0"),
    (lambda: masks.Neighborhood((4, 5), (3,)), ValueError, r"kernel must have one number for each axis, 2: got \(3,\)"),
    (lambda: masks.Neighborhood(8, 3, 3), ValueError, r"at most the size of its axis: got kernel=3, dilation=3 for 8"),
    (
        lambda: pairs(masks.Neighborhood((6, 6), 3)),
        ValueError,
        r"got \(6, 6\), 36 positions, for 37 queries and 53 keys",
    ),
    (lambda: masks.Window(-1, 0), ValueError, r"left must not be negative: got left=-1"),
    (lambda: masks.Window(1.5, 0), TypeError, r"left must be an int or None: got 1.5"),
    (lambda: masks.Causal(0.5), TypeError, r"offset must be integers: got float64"),
    (lambda: masks.Segments(np.zeros((2, 3))), TypeError, r"q_ids must be integers: got float64"),
    (lambda: masks.Dense(np.zeros((3, 3))), TypeError, r"mask must be boolean.*got float64"),
    (lambda: masks.BlockSparse(np.zeros((3, 3)), 8), TypeError, r"pattern must be boolean: got float64"),
    (lambda: masks.BlockSparse(np.zeros(3, bool), 8), ValueError, r"two axes.*got shape \(3,\)"),
    (lambda: masks.BlockSparse(np.zeros((3, 3), bool), 0), ValueError, r"block must be a positive int: got 0"),
    (
        lambda: pairs(masks.BlockSparse(np.zeros((3, 3), bool), 8)),
        ValueError,
        r"got shape \(3, 3\) for 37 queries and 53 keys in blocks of 8",
    ),
    (
        lambda: pairs(masks.Segments(np.arange(36), np.arange(53))),
        ValueError,
        r"q_ids must have one id per query: got shape \(36,\) for 37",
    ),
    (
        lambda: pairs(masks.Segments(np.arange(37))),
        ValueError,
        r"kv_ids must have one id per key: got shape \(37,\) for 53",
    ),
    (
        lambda: pairs(masks.PrefixLM(54)),
        ValueError,
        r"length must be between 0 and the number of key positions: got 54 to 54 for 53",
    ),
    (lambda: pairs(masks.Lengths(38)), ValueError, r"query_seq_lengths must be between 0.*got 38 to 38 for 37"),
    (
        lambda: pairs(masks.Causal(np.arange(2))),
        ValueError,
        r"mask must broadcast to \(\*batch,\) = \(3,\): got shape \(2,\)",
    ),
]


@pytest.mark.parametrize(("make", "error", "message"), WRONG, ids=[w[2][:30] for w in WRONG])
def test_a_wrong_mask_says_what_is_wrong(make, error, message):
    with pytest.raises(error, match=message):
        make()
