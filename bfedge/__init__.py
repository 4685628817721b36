"""bfedge: from a trained ButterflyViT checkpoint to bit-identical inference on edge devices."""

__version__ = "0.1.0"
