"""This machine's kernels beside other runtimes: `bfedge bench` without a model. Needs the extra `bench`."""
