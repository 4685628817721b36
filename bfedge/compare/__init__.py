"""Trained models side by side: what `bfedge compare` measures, and how it shows it. Needs the extra `train`."""
