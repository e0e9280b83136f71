"""T5 of the library transformers: logits with a padded source, greedy and beam search, states of the encoder alone."""

import numpy as np

from tests.oracles._drawn import lengths, redrawn

SIZES = {
    "vocab_size": 31,
    "d_model": 12,
    "d_kv": 5,
    "d_ff": 20,
    "num_layers": 2,
    "num_heads": 3,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 20,
}
V1_1 = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
VARIANTS = {
    "1.0": ("T5ForConditionalGeneration", {}),
    "1.1": ("T5ForConditionalGeneration", {**V1_1, "num_decoder_layers": 3, "layer_norm_epsilon": 1e-5}),
    "gated, tied": ("T5ForConditionalGeneration", {"feed_forward_proj": "gated-silu"}),
    "encoder": ("T5EncoderModel", V1_1),
}
LENGTH, BEAMS = 9, 3


def make(variant):
    """The published model of a variant, its config.json and the shapes of its file; version 1.1 has a head of its own."""
    import torch
    import transformers

    name, options = VARIANTS[variant]
    model = getattr(transformers, name)(transformers.T5Config(**{**SIZES, **options}))
    if variant == "1.1":
        model.lm_head.weight = torch.nn.Parameter(torch.zeros(SIZES["vocab_size"], SIZES["d_model"]))
    return redrawn(model)


def cases():
    import torch

    source, mask = lengths(3, SIZES["vocab_size"], 2, 29, 17)
    target = np.concatenate([np.zeros((2, 1), int), lengths(4, SIZES["vocab_size"], 2, 30, 30)[0]], axis=1)
    given = {"input_ids": torch.tensor(source), "attention_mask": torch.tensor(mask)}
    found = {}
    for variant in VARIANTS:
        model, files = make(variant)
        run = {"source": source, "mask": mask.astype(bool), "target": target}
        with torch.no_grad():
            if variant == "encoder":
                run["output"] = model(**given).last_hidden_state.numpy()
            else:
                run["output"] = model(**given, decoder_input_ids=torch.tensor(target)).logits.numpy()
                # The library's cache has the encoder's depth: decoders of another are decoded without.
                for beams in (1, BEAMS):
                    written = model.generate(
                        **{name: array[1:] for name, array in given.items()},
                        max_new_tokens=LENGTH,
                        do_sample=False,
                        num_beams=beams,
                        eos_token_id=None,
                        decoder_start_token_id=0,
                        length_penalty=0.0,
                        use_cache=False,
                    )
                    run[f"beams_{beams}"] = written[0, 1:].numpy()
        found[f"{variant}/files"] = files
        found[f"{variant}/run"] = run
    return found
