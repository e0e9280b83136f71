"""LLaMA of the library transformers: logits of sequences longer than the first training length, and greedy text."""

from tests.oracles._drawn import lengths, redrawn

SIZES = {
    "vocab_size": 31,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 20,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
VARIANTS = {
    "2": {"num_key_value_heads": 4, "rms_norm_eps": 1e-5},
    "3.1": {"num_key_value_heads": 2, "rope_scaling": LLAMA3, "rope_theta": 500_000.0},
    "narrow heads": {"num_key_value_heads": 1, "head_dim": 6, "rope_scaling": {"rope_type": "linear", "factor": 4.0}},
    "biases of attention": {"num_key_value_heads": 2, "attention_bias": True},
    "tied": {"num_key_value_heads": 2, "tie_word_embeddings": True, "attention_bias": True, "mlp_bias": True},
}


def make(variant):
    """The published model of a variant, its config.json and the shapes of its file."""
    import transformers

    config = transformers.LlamaConfig(**SIZES, **VARIANTS[variant])
    return redrawn(transformers.LlamaForCausalLM(config))


def cases():
    import torch

    ids, _ = lengths(2, SIZES["vocab_size"], 2, 33, 33)
    found = {}
    for variant in VARIANTS:
        model, files = make(variant)
        with torch.no_grad():
            logits = model(torch.tensor(ids)).logits.numpy()
            prompt = torch.tensor(ids[:1, :5])
            greedy = model.generate(prompt, max_new_tokens=12, do_sample=False, eos_token_id=None)[0, 5:].numpy()
        found[f"{variant}/files"] = files
        found[f"{variant}/run"] = {"ids": ids, "output": logits, "greedy": greedy}
    return found
