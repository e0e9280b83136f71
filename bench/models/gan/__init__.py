"""Training of adversarial networks: beside PyTorch, and with and without augmentation."""
