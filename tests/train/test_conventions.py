"""Parameter names with a meaning (train/params/conventions.py) against the parameters of every recipe and model."""

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax
import pytest

import eqxgen.models
from eqxgen.configs import EDM2Config, GPTConfig, RNNConfig, T5Config, UNetConfig, VQGANConfig
from eqxgen.models import LPIPS, EDM2UNet, Inception, T5Encoder, Upsampler
from tests.models.model_rows import mage_classifier
from tests.models.test_models import MODELS
from train.engine.recipes import RECIPES, named
from train.params.conventions import ENDS, ISLANDS, WHOLE, WIDTH
from train.params.paths import leaves, matches
from train.tasks.facts import (
    AudioFacts,
    CaptionFacts,
    ClassifierFacts,
    ImageFacts,
    LabelFacts,
    LatentFacts,
    PairFacts,
    TextFacts,
    TextPairFacts,
    TokenFacts,
)

FACTS = {
    ImageFacts: ImageFacts((32, 32, 3), 10),
    ClassifierFacts: ClassifierFacts((32, 32, 3), 10),
    TokenFacts: TokenFacts((32, 32, 3), 10, 64, 512),
    CaptionFacts: CaptionFacts((32, 32, 3), 10, 64, 512, vocab=65, text=16),
    PairFacts: PairFacts((32, 32, 3), 10, vocab=65, text=16, end=64),
    TextFacts: TextFacts(65, 64),
    LabelFacts: LabelFacts(65, 64, classes=3),
    TextPairFacts: TextPairFacts(65, 8, 8),
}
SMALL = {"dim": 64, "depth": 2, "heads": 4, "context": 64}
VARIANTS: dict[str, list[Any]] = {
    "gpt": [
        GPTConfig.llama(**SMALL, kv_heads=2),
        GPTConfig.mla(**SMALL, latent=16),
        GPTConfig(tied=False),
        GPTConfig(**SMALL, experts=4),
    ],
    "vqgan": [VQGANConfig(codebook="ema")],
    "rnn": [RNNConfig(dim=32, cell=cell) for cell in ("lstm", "gru", "rnn")],
}
"""Sizes with parameters that no preset has."""
NETS: dict[str, Any] = {
    "Inception": lambda key: Inception(key=key),
    "LPIPS": lambda key: LPIPS("squeeze", key=key),
    "EDM2UNet": lambda key: EDM2UNet(3, 5, EDM2Config(16, (1, 2), blocks=1, attention=(1,), head_dim=8), key=key),
    "Upsampler": lambda key: Upsampler(3, 5, UNetConfig(width=8, multipliers=(1, 2), blocks=1, groups=4), key=key),
    "MAGEClassifier": mage_classifier,
    "T5Encoder": lambda key: T5Encoder(7, T5Config(dim=16, depth=2, heads=2, head_dim=6, hidden_dim=24), key=key),
}
"""Models that are in no table of tests/models."""
FAMILIES = [*RECIPES, *(row.name for row in MODELS), *NETS]


def is_array(leaf):
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)


@functools.cache
def shapes(family):
    """The models of a recipe's presets and variants, or of a row of the table, as shapes."""
    abstract = lambda make: eqx.filter_eval_shape(make, jax.random.key(0))
    if family in NETS:
        return [abstract(NETS[family])]
    if family not in RECIPES:
        return [abstract(row.make) for row in MODELS if row.name == family]
    recipe = named(family)
    configs = [*recipe.presets.values()]
    configs += [dataclasses.replace(configs[0], model=sizes) for sizes in VARIANTS.get(family, [])]
    if family == "vqgan":
        configs += [dataclasses.replace(configs[0], quantizer=kind) for kind in ("fsq", "gumbel")]
        configs = [dataclasses.replace(config, adversarial=0.1) for config in configs]
    scaled = lambda config: "scales" in (getattr(config, "order", ""), config.preset.rpartition("-")[2])
    on_paper = lambda config: recipe.facts in (AudioFacts, LatentFacts) or scaled(config)
    facts = lambda config: recipe.on_paper(config) if on_paper(config) else FACTS[recipe.facts]
    return [abstract(recipe.program(config, facts(config)).init) for config in configs]


@functools.cache
def parameters(family):
    return {path: leaf for tree in shapes(family) for path, leaf in leaves(eqx.filter(tree, is_array))}


def kernels(family):
    """Paths of matrices and kernels; the first axis of an array of a `Stack` counts its layers."""
    return [path for path, leaf in parameters(family).items() if leaf.ndim - ("blocks." in path) >= 2]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_matrix_is_split_by_a_rule_or_listed_as_whole(family):
    rows = [*(pattern for pattern, _ in WIDTH), *WHOLE]
    silent = [path for path in kernels(family) if not any(matches(row, path) for row in rows)]
    assert not silent, "add each to WIDTH or WHOLE of train/params/conventions.py"


@pytest.mark.parametrize("row", [*(pattern for pattern, _ in WIDTH), *WHOLE, *ISLANDS, *ENDS])
def test_every_row_names_a_parameter_of_some_model(row):
    assert any(matches(row, path) for family in FAMILIES for path in parameters(family)), "a dead row"


def test_every_public_model_is_asked():
    without_parameters = {"PixelTokenizer"}
    found = {type(node).__name__ for family in FAMILIES for tree in shapes(family) for node in modules(tree)}
    assert set(eqxgen.models.__all__) - without_parameters <= found


def modules(tree):
    """Every module of a tree, itself included."""
    found = []
    jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, eqx.Module) and found.append(node))
    return found
