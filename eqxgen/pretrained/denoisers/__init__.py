"""Published nets that denoise images: U-Nets and transformers."""
