"""The training engine: contract, step, loop, dry run."""
