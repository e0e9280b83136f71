"""Order of the files of tests over workers: the longest first, so that no worker waits for another at the end."""

from collections import Counter
from collections.abc import Sequence

import pytest

EACH = 0.3
"""Seconds of any other test, with its share of compilation."""
SECONDS = {
    "data/test_feed.py": 15,
    "diffusion/test_convergence.py": 15,
    "house/test_gpu_bench.py": 12,
    "house/test_models_page.py": 25,
    "house/test_new.py": 15,
    "house/test_readme.py": 55,
    "kernels/test_attention.py": 40,
    "kernels/test_attention_derivatives.py": 22,
    "kernels/test_attention_drawn.py": 18,
    "kernels/test_attention_masked.py": 15,
    "kernels/test_attention_tpu.py": 35,
    "kernels/test_norm.py": 20,
    "models/test_gan.py": 18,
    "models/test_image_tokenizers.py": 15,
    "models/test_model_meshes.py": 18,
    "models/test_models.py": 40,
    "models/test_perceptual.py": 12,
    "models/test_unet.py": 15,
    "nn/test_layer_meshes.py": 12,
    "nn/test_layers_norms.py": 12,
    "train/test_checkpoint.py": 20,
    "train/test_classify.py": 10,
    "train/test_commands.py": 25,
    "train/test_diffusion.py": 15,
    "train/test_engine_devices.py": 40,
    "train/test_evaluators.py": 100,
    "train/test_gan.py": 25,
    "train/test_language.py": 30,
    "train/test_latents.py": 20,
    "train/test_parallel.py": 40,
    "train/test_start.py": 30,
    "train/test_train.py": 50,
    "train/test_vae.py": 35,
    "train/test_vqgan_players.py": 30,
}
"""Processor seconds of the files that are longer than their number of tests says, beside `EACH`."""


def file_of(item: pytest.Item) -> str:
    """`train/test_parallel.py`"""
    return item.nodeid.split("::")[0].removeprefix("tests/")


def longest_first(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The tests with those of the longest file first; those of one file stay together and in their order."""
    counts = Counter(map(file_of, items))
    seconds = {file: SECONDS.get(file, 0) + EACH * count for file, count in counts.items()}
    return sorted(items, key=lambda item: (-seconds[file_of(item)], file_of(item)))
