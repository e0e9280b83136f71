"""A process that prepares latents or tokens on its virtual devices, and is killed after some files.

python -m tests.train.latents_prepared SOURCE TOKENIZER OUT FILES
"""

import os
import signal
import sys
from pathlib import Path

from train.config.data import DataConfig
from train.parallel import make_mesh
from train.tasks.encoded.encoding import prepare_encoded

SHARD = 4000
"""Bytes of a shard: a few of the rows of the tests' sets."""


def main(source: str, tokenizer: str, out: str, files: int) -> None:
    written: list[str] = []

    def say(line: str) -> None:
        written.append(line)
        if sum(each.endswith("bytes") for each in written) == files:
            os.kill(os.getpid(), signal.SIGKILL)

    mesh = make_mesh("fsdp=8")
    prepare_encoded(DataConfig(source), Path(out), tokenizer, mesh, mirror=True, batch=8, shard_bytes=SHARD, say=say)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
