"""Where models run: the C runtime on this machine, and later on boards."""
