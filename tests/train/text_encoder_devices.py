"""Run by test_text_encoders.py in a process of its own on 8 virtual devices: prints the losses of a run with a frozen
encoder with copies on all devices and with parts, as JSON.
"""

import json
import sys
from pathlib import Path

from eqxgen.configs import MaskedDecoding, MuseConfig
from tests.train.small_runs import metrics
from train import muse
from train.config.data import DataConfig
from train.parallel import make_mesh
from train.tasks.text_encoders import open_text_encoder


def main(pictures: str, encoder: str, folder: str) -> None:
    sizes = MuseConfig(dim=16, depth=1, decoder_depth=1, heads=1, head_dim=16, hidden_dim=16, context=10, dropout=0.0)
    found = {}
    for mesh in ("data=8", "fsdp=8"):
        run = Path(folder) / mesh
        config = muse.Config(
            run_dir=str(run),
            steps=3,
            batch_size=8,
            log_every=1,
            sample_every=0,
            evals=("none",),
            mesh=mesh,
            tokenizer="pixels",
            text_encoder=encoder,
            data=DataConfig(name=pictures, image_size=4),
            model=sizes,
            decode=MaskedDecoding(steps=2, guidance=2.0),
        )
        assert muse.main(config) == 0
        found[mesh] = [line["loss"] for line in metrics(run)]
    placed = open_text_encoder(encoder, 10, make_mesh("fsdp=8"))
    found["parts"] = str(placed.net.embedding.weight.sharding)
    print(f"\n{json.dumps(found)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
