"""Flags and config files that cannot be: cases 81 to 92 and 96 to 100 of the list of bad inputs."""

import json
import shlex
from pathlib import Path

from tests.train.bad_input import Case


def flags(number: int, words: str, says: str, status: int = 2, module: str = "train.maskgit") -> Case:
    """A command line that is wrong by itself."""
    line = [module, *shlex.split(words)]
    return Case(number, words, lambda folder: line, says, status)


def file(number: int, what: str, content: str | bytes, says: str, status: int = 2) -> Case:
    """A config file that is wrong."""

    def prepare(folder: Path) -> list[str]:
        data = content.encode() if isinstance(content, str) else content
        (folder / "c.json").write_bytes(data)
        return ["train.maskgit", "--config", "c.json"]

    return Case(number, what, prepare, says, status)


def begun(folder: Path) -> list[str]:
    """A run of more steps than are asked for now."""
    from train import vqgan
    from train.config.base import to_dict

    (folder / "run").mkdir()
    record = {
        "recipe": "vqgan",
        "config": to_dict(vqgan.PRESETS["digits"]),
        "facts": {"image_shape": [8, 8, 1], "classes": 10},
    }
    (folder / "run" / "config.json").write_text(json.dumps(record))
    return ["train.vqgan", "--run-dir", "run", "--steps", "60"]


CASES = [
    flags(81, "--stepz 3", "--stepz: no such flag: did you mean --steps"),
    flags(81, "--optim.lerning-rate 1e-3", "--optim.lerning-rate: no such flag: did you mean --optim.learning-rate"),
    flags(81, "--lerning-rate 1e-3", "--lerning-rate: no such flag: did you mean --optim.learning-rate"),
    flags(81, "--steps", "--steps must be a whole number: got no value"),
    flags(81, "steps=3", "steps=3: is no flag .*: flags begin with --: did you mean --steps"),
    flags(82, "--steps 3 --steps=4", "--steps: given twice, as --steps and again as --steps=4: give it once"),
    flags(84, "--steps 3e2", "--steps must be a whole number: got '3e2'"),
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
    flags(90, "--seed 1.5", "--seed must be a whole number: got '1.5'"),
    flags(91, "--steps 0", "steps must be at least 1: got 0"),
    flags(92, "--precision float8", "precision must be one of .*: got 'float8'"),
    flags(81, "--config c.json", "--config c.json: cannot be read: No such file"),
    file(
        81,
        "a key that is misspelt",
        '{"optim": {"lerning_rate": 1}}',
        "c.json: optim.lerning_rate: no such field: did you mean optim.learning_rate",
    ),
    file(81, "a value where an object belongs", '{"optim": 3}', "c.json: optim must be an object of fields: got 3"),
    file(81, "an object where a value belongs", '{"steps": {"a": 1}}', "c.json: steps must be one value"),
    file(81, "a list for a config", "[1]", "c.json: must hold an object of flags: got list"),
    file(
        81,
        "a config of another recipe",
        '{"recipe": "vqgan", "config": {}}',
        "c.json: is of a run of train.vqgan: give one of train.maskgit",
    ),
    file(82, "a key given twice", '{"steps": 3, "steps": 4}', "c.json: steps is given twice"),
    file(83, "a text for a number", '{"steps": "many"}', "--config c.json: steps must be a whole number: got 'many'"),
    file(84, "a number with a leading zero", '{"steps": 010}', "c.json: must be JSON: .* in line 1"),
    file(84, "YAML for JSON", "steps: on\n", "c.json: must be JSON: .* in line 1"),
    file(84, "true for a number", '{"steps": true}', "c.json: steps must be a whole number: got True"),
    file(
        85,
        "a learning rate below 0",
        '{"optim": {"learning_rate": -1}}',
        "--config c.json: optim.learning_rate must be positive and finite: got -1",
    ),
    flags(
        88,
        "--steps 10 --optim.warmup 11",
        "--optim.warmup must be at most the steps of the run: got 11 with --steps 10",
    ),
    flags(89, "--batch-size 12 --accumulate 5", "accumulate must divide batch_size: got batch_size=12, accumulate=5"),
    flags(89, "--accumulate 0", "accumulate must be at least 1: got 0"),
    flags(92, "--max-skips 0", "max_skips must be at least 1: got 0"),
    Case(
        91,
        "fewer steps than the run in the folder is of",
        begun,
        "--run-dir run: holds a run with another config .--steps was 500 and is 60",
    ),
    *(
        flags(81, words, says, module="train.diffusion")
        for words, says in {
            "--sampling.steps 0": "sampling.steps must be at least 1: got 0",
            "--preset cifar10 --sampling.steps 1001": "sampling.steps must be at most denoiser.schedule.steps: got 1001",
            "--sampling.sigma-min 90": "sampling.sigma_min must be below sampling.sigma_max: got 90.0",
            "--sampling.variance learned": "sampling.variance learned must have a model with dit.learn_variance",
            "--preset cifar10 --sampling.guidance 2": "sampling.guidance must be 1 for a model without classes: got 2",
            "--sampling.interval 5,0.3": "sampling.interval must be LOW,HIGH .*: got '5,0.3'",
            "--sampling.eta 1.5": r"sampling.eta must be in \[0, 1\]: got 1.5",
            "--dry-run --dit.patch 3": "--dit.patch: 3 must divide the sides of the images: got 8 x 8",
            "--dry-run --backbone unet --unet.multipliers 1 1 1 1 1": "--unet.multipliers: .* 16 must divide the sides",
            "--backbone unet --unet.width 24": "unet.groups must divide 48 channels: got 32",
            "--backbone unet --unet.heads 3": "unet.heads must divide 256 channels: got 3",
        }.items()
    ),
    flags(
        81,
        "--model.width 24",
        "model.width times each of model.multipliers must be a multiple of the norms' groups: got 48 .* in 32 groups",
        module="train.vqgan",
    ),
    flags(96, "--mesh data=2", "--mesh must have as many places as there are devices, 1: got data=2, which has 2"),
    flags(96, "--mesh rows=1", "--mesh must name axes among data, fsdp, expert, pipeline, context, model: got 'rows'"),
    flags(96, "--mesh data=1,data=1", "--mesh must name an axis once: got data twice"),
    flags(96, "--mesh data=0", "--mesh data must be a whole number of at least 1: got '0'"),
    flags(96, "--mesh data", "--mesh data must be a whole number of at least 1: got ''"),
    flags(91, "--profile 3", "profile must be of the form START:COUNT, such as 20:3.*got '3'"),
    flags(91, "--profile 318:3", "profile must be within the steps of the run: got 318:3 with steps=320"),
    flags(
        96,
        "--coordinator localhost --num-processes 2 --process-id 0",
        "coordinator must be of the form host:port: got 'localhost'",
    ),
    flags(96, "--coordinator a:1 --num-processes 2", "coordinator needs --num-processes and --process-id"),
    flags(
        96,
        "--coordinator a:1 --num-processes 2 --process-id 2",
        r"process_id must be in \[0, num_processes\): got process_id=2, num_processes=2",
    ),
    flags(96, "--num-processes 2", "num_processes and process_id go with --coordinator"),
    file(
        97, "YAML that builds an object", "!!python/object/apply:os.system ['id']", "c.json: must be JSON: .* in line 1"
    ),
    file(98, "a config that is not UTF-8", b'{"preset": "caf\xe9"}', "c.json: must be UTF-8: byte 15 is not"),
    file(
        98, "a config of more than a megabyte", '{"steps": 3}' + " " * 2**20, "c.json: is larger than 1,048,576 bytes"
    ),
    file(98, "NaN in a config", '{"optim": {"learning_rate": NaN}}', "c.json: NaN is not a number of JSON"),
    file(98, "Infinity in a config", '{"optim": {"clip": Infinity}}', "c.json: Infinity is not a number of JSON"),
    file(98, "a config nested without end", "[" * 100_000, "c.json: (is nested too deep|must be JSON)"),
    flags(99, "--config ../c.json", "--config ../c.json: cannot be read: No such file"),
    flags(99, "--config '~nobody-of-this-name/c.json'", "--config ~nobody-of-this-name/c.json: cannot be read"),
    flags(99, "--config 'a\nb$(id).json'", r"--config a\\nb\$\(id\).json: cannot be read: No such file"),
    flags(99, "--config -rf", "--config -rf: cannot be read: No such file"),
    flags(99, "--data.name 'x\ny'", "data.name must be one of"),
    Case(
        99,
        "a path with a null character",
        lambda folder: ["train.maskgit", "--config", "a\0b"],
        r"--config a\\x00b: cannot be read",
        2,
    ),
    flags(
        81,
        "--print-groups --optim.undecayed hed",
        "--optim.undecayed: a path pattern must name something: got 'hed'.*head",
    ),
    flags(85, "--optim.rates head", "optim.rates must be of the form PATTERN=FACTOR.*got 'head'"),
    flags(85, "--optim.final 2", r"optim.final must be in \[0, 1\]"),
    flags(85, "--optim.decay exponential", "optim.final must be positive with optim.decay=exponential"),
    flags(85, "--optim.name adamm", "--optim.name must be one of .*: got 'adamm'; did you mean adamw"),
    flags(
        22,
        "--quantizer lfq --model.codes 60",
        "model.codes must be a power of 2 with quantizer lfq: got 60; give --model.codes 32",
        module="train.vqgan",
    ),
    flags(
        22,
        "--net vit --vit.codes 64 --quantizer fsq --levels 3 3",
        "levels must multiply to vit.codes: got 3 x 3 = 9 and vit.codes=64; give --vit.codes 9",
        module="train.vqgan",
    ),
    flags(
        22,
        "--autoencoder-scale 0.5",
        "autoencoder_scale goes with --autoencoder on images, which was not given",
        module="train.diffusion",
    ),
    flags(86, "--ema.decay 1", r"ema.decay must be in \[0, 1\): got 1"),
    flags(86, "--ema.sigma-rel 0.05 0.5", r"ema.sigma_rel must be in \(0, 0.28\): got 0.5"),
]
CASES.sort(key=lambda case: case.number)
