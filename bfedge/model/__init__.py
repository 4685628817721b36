"""The torch model: what is trained. Needs the extra `train`."""
