"""Training of diffusion and flow models.

loss      the loss of a denoiser, and the noised examples of every objective
few_step  objectives of models of few steps
presets   presets of `train.diffusion`
"""
