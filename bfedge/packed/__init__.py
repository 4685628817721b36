"""The packed file (.bfe): FORMAT.md in code. Needs no torch."""
