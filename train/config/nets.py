"""Names of nets whose published weights judge images."""

from typing import Literal

LpipsNet = Literal["vgg", "alex", "squeeze"]
"""Nets of LPIPS."""
PerceptualNet = Literal[LpipsNet, "inception"]
"""Nets of perceptual losses: LPIPS on one of its nets, or the features of FID's Inception."""
