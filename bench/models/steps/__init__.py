"""Train steps of ours and of PyTorch's, which `bench.models.torch_steps` races."""
