"""Diffusion and flow: one denoiser `(x_t, t, condition) -> x_0`, and everything that is made of it.

schedules     levels (alpha, sigma) of a time, x_t = alpha x_0 + sigma noise
views         noise, v, velocity, F and score as views of the denoised x_0
precondition  denoisers made of a network
weighting     weights of a loss by level
distances     squared, absolute, Huber and pseudo-Huber errors
times         distributions of the training times
losses        the loss of one example
variance      learned variances, and bits per dimension
grids         times of samplers
solvers       samplers
guidance      denoisers made of denoisers
editing       inpainting, inversion, super-resolution
likelihood    log-likelihood by the probability-flow equation
generate      samples by options
few_step      losses of models of one step or a few
"""
