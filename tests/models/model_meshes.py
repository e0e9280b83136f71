"""Run by test_model_meshes.py in a process of its own: the models as `tests.nn.layer_meshes` takes the layers."""

from tests.models.model_rows import ROWS
from tests.nn import layer_meshes

SHORT = ("GPT", "GPT, LLaMA's", "RNN", "MaskGIT", "DiT", "VQGAN", "ResNet, training")

if __name__ == "__main__":
    layer_meshes.main(ROWS if layer_meshes.FULL else {name: ROWS[name] for name in SHORT})
