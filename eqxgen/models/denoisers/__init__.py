"""Nets that predict from a noised image: U-Nets and transformers of diffusion and flow models."""
