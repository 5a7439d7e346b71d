"""The command ``effx``, also as ``python -m effx``."""

from __future__ import annotations

import sys

from effx import signals


def main() -> None:
    """Handle signals first, so that one that arrives while the command line is imported is handled too."""
    signals.install()
    try:
        from effx.cli import main as run_command

        run_command()
    except KeyboardInterrupt as stop:
        sys.exit(signals.exit_code(stop))


if __name__ == "__main__":
    main()
