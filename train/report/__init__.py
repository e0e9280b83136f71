"""Reports of a run: log, speed, profile, loss curve, animated samples, and card."""
