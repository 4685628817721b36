"""Data sets, recipes and the training loop. Needs the extra `train`."""
