"""Editing of images by any denoiser: inpainting, changes of a guide, inversion, interpolation, super-resolution."""

from eqxgen.diffusion.editing.changes import invert, sdedit, slerp, strength
from eqxgen.diffusion.editing.inpainting import inpaint, path_of
from eqxgen.diffusion.editing.super_resolution import NullSpace, Upsampled, factor_of

__all__ = ["NullSpace", "Upsampled", "factor_of", "inpaint", "invert", "path_of", "sdedit", "slerp", "strength"]
