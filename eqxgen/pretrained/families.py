"""Families of published models that are read: a line each, and its module of the same name."""

from typing import NamedTuple


class Known(NamedTuple):
    """A family.

    Attributes:
        module: in this folder, and the name of its `Family` in upper case.
        types: `model_type` or `_class_name` in config.json.
        sign: pattern of a published name by which a file without a config is recognised.
    """

    module: str
    types: tuple[str, ...]
    sign: str


FAMILIES = (Known("gpt2", ("gpt2",), "*h.0.attn.c_attn.weight"),)
