"""Flags and config files that cannot be: cases 81 to 92 and 96 to 100 of the list of bad inputs."""

import shlex

from bad_input import Case


def flags(number: int, words: str, says: str, status: int = 2, module: str = "train.maskgit") -> Case:
    """A command line that is wrong by itself."""
    line = [module, *shlex.split(words)]
    return Case(number, words, lambda folder: line, says, status)


CASES = [
    flags(81, "--stepz 3", "--stepz: no such flag: did you mean --steps"),
    flags(81, "--optim.lerning-rate 1e-3", "--optim.lerning-rate: no such flag: did you mean --optim.learning-rate"),
    flags(81, "--lerning-rate 1e-3", "--lerning-rate: no such flag: did you mean --optim.learning-rate"),
    flags(81, "--steps", "--steps.*Expected 1 value"),
    flags(81, "steps=3", "steps=3"),
    flags(82, "--steps 3 --steps=4", "--steps: given twice, as --steps and again as --steps=4: give it once"),
    flags(84, "--steps 3e2", "--steps.*'3e2'"),
    flags(85, "--optim.learning-rate nan", "optim.learning_rate must be positive and finite: got nan"),
    flags(85, "--optim.learning-rate -1", "optim.learning_rate must be positive and finite: got -1"),
    flags(85, "--optim.learning-rate 0", "optim.learning_rate must be positive and finite: got 0"),
    flags(86, "--optim.beta1 1.5", r"optim.beta1 must be in \[0, 1\): got 1.5"),
    flags(87, "--optim.clip 0", "optim.clip must be positive: got 0"),
    flags(87, "--optim.clip -1", "optim.clip must be positive: got -1"),
    flags(89, "--batch-size 0", "batch_size must be at least 1: got 0"),
    flags(89, "--batch-size -4", "batch_size must be at least 1: got -4"),
    flags(90, "--seed -1", r"seed must be in \[0, 2\*\*32\): got -1"),
    flags(90, "--seed 18446744073709551616", r"seed must be in \[0, 2\*\*32\): got 18446744073709551616"),
    flags(90, "--seed 1.5", "--seed.*'1.5'"),
    flags(91, "--steps 0", "steps must be at least 1: got 0"),
    flags(92, "--precision float8", "float8.*--precision"),
]
