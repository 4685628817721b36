"""The lowered model: everything a device needs as NumPy arrays, nothing of training. Needs no torch."""
