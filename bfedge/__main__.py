"""`python -m bfedge` is `bfedge`, as torchrun needs it."""

from bfedge.cli.main import main

if __name__ == "__main__":
    main()
