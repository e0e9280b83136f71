"""Attention of Transformers and PyTorch, with random weights, and the positions of models that ship theirs."""

from typing import Any

import numpy as np

from tests.oracles import Cases

SEQ = 7
T5 = {
    "encoder": (False, 8, 20),
    "decoder": (True, 8, 20),
    "encoder, published": (False, 32, 128),
    "decoder, published": (True, 32, 128),
}
LATENT: dict[str, dict[str, Any]] = {
    "query latent, interleaved": {"q_lora_rank": 6, "interleaved": True},
    "halves": {"q_lora_rank": None, "interleaved": False},
}
ALIBI = (3, 8, 12)


def cases() -> Cases:
    import torch

    torch.manual_seed(0)
    with torch.no_grad():
        found = {"llama": _llama(), "cross": _cross(), "gptj": _gptj(), "perceiver": _perceiver(), "alibi": _alibi()}
        found |= {f"t5 {name}": _t5(*options) for name, options in T5.items()}
        return found | {f"latent {name}": _latent(**options) for name, options in LATENT.items()}


def _arrays(module, **more) -> dict[str, np.ndarray]:
    return {name: np.asarray(x) for name, x in (dict(module.state_dict()) | more).items()}


def _causal():
    import torch

    return torch.full((SEQ, SEQ), float("-inf")).triu(1)[None, None]


def _randomise(module):
    import torch

    for name, x in module.named_parameters():
        x.copy_(torch.randn(x.shape) * (1 if "norm" in name else x.shape[-1] ** -0.5))
    return module.eval()


def _llama():
    import torch
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRotaryEmbedding

    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "attn_implementation": "eager",
    }
    config = LlamaConfig(**sizes)
    layer, x = _randomise(LlamaAttention(config, 0)), torch.randn(1, SEQ, 16)
    positions = LlamaRotaryEmbedding(config)(x, torch.arange(SEQ)[None])
    return _arrays(layer, x=x[0], y=layer(x, positions, _causal())[0][0])


def _cross():
    import torch

    layer = _randomise(torch.nn.MultiheadAttention(8, 2, kdim=6, vdim=6, batch_first=True))
    x, context, mask = torch.randn(1, 5, 8), torch.randn(1, SEQ, 6), torch.rand(5, SEQ) < 0.7
    return _arrays(layer, x=x[0], context=context[0], mask=mask, y=layer(x, context, context, attn_mask=~mask)[0][0])


def _gptj():
    import torch
    from transformers.models.gptj.modeling_gptj import apply_rotary_pos_emb, create_sinusoidal_positions

    x = torch.randn(1, SEQ, 2, 8)
    table = create_sinusoidal_positions(SEQ, 8)
    sin, cos = table[None].split(4, dim=-1)
    return {"x": np.asarray(x[0]), "y": np.asarray(apply_rotary_pos_emb(x, sin, cos)[0]), "table": np.asarray(table)}


def _perceiver():
    import torch
    from transformers.models.perceiver.modeling_perceiver import PerceiverFourierPositionEncoding

    encoding = PerceiverFourierPositionEncoding(num_bands=3, max_resolution=(4, 5))
    return {"y": np.asarray(encoding((4, 5), 1, device="cpu", dtype=torch.float32)[0])}


def _alibi():
    import torch
    from transformers.models.bloom.modeling_bloom import build_alibi_tensor

    return {
        str(heads): np.asarray(build_alibi_tensor(torch.ones(1, 2), heads, torch.float32)[:, 0, 1]) for heads in ALIBI
    }


def _t5(causal: bool, buckets: int, max_distance: int):
    from transformers import T5Config
    from transformers.models.t5.modeling_t5 import T5Attention

    sizes: dict[str, Any] = {"d_model": 4, "d_kv": 2, "num_heads": 2, "relative_attention_num_buckets": buckets}
    config = T5Config(**sizes, relative_attention_max_distance=max_distance, is_decoder=causal)
    layer = _randomise(T5Attention(config, has_relative_attention_bias=True, layer_idx=0))
    # A query in the middle of the keys sees every distance to both sides.
    return {
        "weight": np.asarray(layer.relative_attention_bias.weight),
        "y": np.asarray(layer.compute_bias(3, 260, past_seen_tokens=129)[0]),
    }


def _latent(q_lora_rank: int | None, interleaved: bool):
    import torch
    from transformers import DeepseekV3Config
    from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3Attention, DeepseekV3RotaryEmbedding

    sizes: dict[str, Any] = {
        "hidden_size": 12,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "kv_lora_rank": 5,
        "q_lora_rank": q_lora_rank,
    }
    sizes |= {
        "qk_nope_head_dim": 6,
        "qk_rope_head_dim": 4,
        "v_head_dim": 3,
        "rope_interleave": interleaved,
        "attn_implementation": "eager",
    }
    config = DeepseekV3Config(**sizes)
    layer, x = _randomise(DeepseekV3Attention(config, 0)), torch.randn(1, SEQ, 12)
    positions = DeepseekV3RotaryEmbedding(config)(x, torch.arange(SEQ)[None])
    return _arrays(layer, x=x[0], y=layer(x, positions, _causal())[0][0])
