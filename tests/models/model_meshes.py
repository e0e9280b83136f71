"""Run by test_model_meshes.py in a process of its own: the models, and samplers and losses of one example, as
`tests.nn.layer_meshes` takes the layers.
"""

from tests.decoding.mapped import MAPPED
from tests.models.model_rows import ROWS
from tests.nn import layer_meshes

SHORT = ("GPT", "GPT, LLaMA's", "RNN", "MaskGIT", "DiT", "VQGAN", "ResNet, training", "masked", "image tokens")

if __name__ == "__main__":
    rows = ROWS | MAPPED
    layer_meshes.main(rows if layer_meshes.FULL else {name: rows[name] for name in SHORT})
