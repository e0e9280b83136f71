"""Order of the files of tests over workers: the longest first, so that no worker waits for another at the end."""

from collections import Counter
from collections.abc import Sequence

import pytest

EACH = 0.4
"""Seconds of any other test, with its share of compilation."""
SECONDS = {
    "data/test_feed.py": 25,
    "house/test_gpu_bench.py": 19,
    "house/test_models_page.py": 16,
    "house/test_new.py": 25,
    "house/test_readme.py": 56,
    "kernels/test_attention.py": 20,
    "kernels/test_attention_devices.py": 11,
    "kernels/test_attention_drawn.py": 31,
    "kernels/test_attention_tpu.py": 23,
    "kernels/test_norm.py": 49,
    "kernels/test_norm_sharding.py": 11,
    "kernels/test_op_meshes.py": 12,
    "models/test_model_meshes.py": 36,
    "models/test_models.py": 14,
    "nn/test_layer_meshes.py": 20,
    "nn/test_layers.py": 117,
    "nn/test_layers_norms.py": 17,
    "nn/test_seed_snippets.py": 16,
    "train/test_bad_input.py": 82,
    "train/test_checkpoint.py": 90,
    "train/test_classify.py": 15,
    "train/test_commands.py": 76,
    "train/test_engine_devices.py": 83,
    "train/test_evaluators.py": 200,
    "train/test_language.py": 50,
    "train/test_parallel.py": 26,
    "train/test_precision.py": 17,
    "train/test_sample.py": 12,
    "train/test_signals.py": 16,
    "train/test_start.py": 45,
    "train/test_toolkit.py": 12,
    "train/test_train.py": 93,
    "train/test_vae.py": 25,
    "train/test_vqgan_players.py": 60,
}
"""Seconds of the tests of a file that are longer than most, of a run beside other work."""


def file_of(item: pytest.Item) -> str:
    """`train/test_parallel.py`"""
    return item.nodeid.split("::")[0].removeprefix("tests/")


def longest_first(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The tests with those of the longest file first; those of one file stay together and in their order."""
    counts = Counter(map(file_of, items))
    seconds = {file: SECONDS.get(file, 0) + EACH * count for file, count in counts.items()}
    return sorted(items, key=lambda item: (-seconds[file_of(item)], file_of(item)))
