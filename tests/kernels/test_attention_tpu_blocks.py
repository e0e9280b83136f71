"""The table of block sizes of attention's TPU kernels: a row for every head_dim, sizes that divide, and the memory."""

import itertools

import pytest

from bench.tpu_schedule.chips import CHIPS
from kernels.attention.mosaic_tpu import blocks, tiling
from kernels.attention.mosaic_tpu.support import WIDEST

KINDS = {"v4": "TPU v4", "v5e": "TPU v5 lite", "v5p": "TPU v5", "v6e": "TPU v6 lite"}
MEMORY = {"v4": 16 << 20, "v5e": 64 << 20, "v5p": 64 << 20, "v6e": 64 << 20}
LONGEST = 32768
WIDTHS = range(1, 2 * WIDEST + 1, 7)


def rows(widest, chip):
    """The rows of both passes that a call of this width can take."""
    forward = {blocks.forward(widest, narrow=narrow) for narrow in (False, True)}
    flags = itertools.product((False, True), repeat=2)
    return forward, {blocks.backward(widest, KINDS[chip], plain=plain, masked=masked) for plain, masked in flags}


@pytest.mark.parametrize("chip", CHIPS)
def test_every_head_dim_of_a_generation_has_rows_of_whole_lanes_that_divide_one_another(chip):
    for widest in (*WIDTHS, 2 * WIDEST):
        for row in set.union(*rows(widest, chip)):
            assert all(side % tiling.LANES == 0 for side in row), (widest, row)
            assert row.kv % row.part == row.q % row.group == 0, (widest, row)
            pieces = row.kv // row.part * (row.q // row.group)
            assert 2 * pieces + 1 + (LONGEST // min(row.q, row.kv)).bit_length() < 32, "an entry has 31 bits"


@pytest.mark.parametrize("chip", CHIPS)
def test_the_blocks_sums_and_two_tiles_of_logits_of_every_row_fit_the_vector_memory(chip):
    """A lower bound of what the compiler takes; `test_attention_tpu_sizes` compiles some."""
    for widest in (64, 128, 256, 512, 1024):
        wide, dim = 4 if widest > WIDEST else 2, max(tiling.LANES, widest if widest <= WIDEST else WIDEST)
        forward, backward = rows(widest, chip)
        for row in forward:
            copied = 2 * wide * dim * (2 * row.q + 2 * row.kv)
            kept = row.q * (wide * dim + 4 * (2 * tiling.LANES + dim)) + 2 * 4 * row.rows * row.part
            assert copied + kept <= MEMORY[chip], (widest, row)
        for row in backward:
            copied = 2 * wide * dim * (2 * row.q + 4 * row.kv)
            kept = 4 * dim * 2 * row.kv + 2 * 4 * min(row.rows, row.q) * row.part
            assert copied + kept + blocks.sum_bytes(KINDS[chip]) <= MEMORY[chip], (widest, row)
