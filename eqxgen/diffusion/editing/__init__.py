"""Editing of images by any denoiser: inpainting, changes of a guide, inversion, interpolation, super-resolution."""

from eqxgen.diffusion.editing.changes import invert, sdedit, slerp, strength
from eqxgen.diffusion.editing.inpainting import inpaint, path_of
from eqxgen.diffusion.editing.super_resolution import Upsampled

__all__ = ["Upsampled", "inpaint", "invert", "path_of", "sdedit", "slerp", "strength"]
