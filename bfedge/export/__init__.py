"""Lowered model to files that run elsewhere. Needs no torch."""
