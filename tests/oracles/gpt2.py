"""GPT-2 of the library transformers, small and with drawn weights: its files, its logits, and a short training run."""

import numpy as np

from tests.oracles._drawn import redrawn

SIZES = {"vocab_size": 37, "n_positions": 24, "n_embd": 16, "n_layer": 2, "n_head": 2}
OTHER = {"activation_function": "gelu", "layer_norm_epsilon": 1e-3, "tie_word_embeddings": False, "n_inner": 24}
STEPS, BATCH = 20, 4


def cases():
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(**SIZES, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0))
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    start = {name: parameter.detach().numpy().copy() for name, parameter in model.named_parameters()}
    ids = (
        np.random.default_rng(0)
        .integers(0, SIZES["vocab_size"], (STEPS, BATCH, SIZES["n_positions"] + 1))
        .astype(np.int32)
    )
    with torch.no_grad():
        logits = model.eval()(torch.tensor(ids[0, :, :-1]).long()).logits.numpy()
        greedy = model.generate(
            torch.tensor(ids[:1, 0, :5]).long(), max_new_tokens=19, do_sample=False, pad_token_id=0
        )[0, 5:].numpy()
    model.train()
    # nanoGPT's optimiser: decay of matrices alone.
    groups = [[p for p in model.parameters() if p.ndim >= 2], [p for p in model.parameters() if p.ndim < 2]]
    options = {"lr": 1e-3, "betas": (0.9, 0.99), "eps": 1e-8}
    adamw = torch.optim.AdamW(
        [{"params": groups[0], "weight_decay": 0.1}, {"params": groups[1], "weight_decay": 0.0}], **options
    )
    losses = []
    for batch in ids:
        logit = model(torch.tensor(batch[:, :-1]).long()).logits
        loss = torch.nn.functional.cross_entropy(
            logit.reshape(-1, SIZES["vocab_size"]), torch.tensor(batch[:, 1:]).long().reshape(-1)
        )
        adamw.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        losses.append(loss.item())
    with torch.no_grad():
        other, files = redrawn(GPT2LMHeadModel(GPT2Config(**SIZES, **OTHER)))
        files["logits"] = other(torch.tensor(ids[0, :, :-1]).long()).logits.numpy()
    return {
        "other": files,
        "weights": start,
        "run": {"ids": ids, "logits": logits, "greedy": greedy, "losses": np.asarray(losses)},
    }
