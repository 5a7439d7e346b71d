"""``python -m effx`` is the command ``effx``."""

from effx.cli import main

if __name__ == "__main__":
    main()
