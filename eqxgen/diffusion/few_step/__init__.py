"""Losses of models that sample in one step or a few.

meanflow     average velocity of a flow between two times, and its improved loss
shortcut     the same average made consistent with its halves
consistency  a denoiser that is constant along its own paths: training and distillation
pairs        distributions of the two times

An average velocity is a function `average(z, t, r, condition, key=) -> (z_t - z_r) / (t - r)` of the path
z_t = (1 - t) x_0 + t noise; at r = t it is the velocity. In each loss the target is held still.
"""
