"""The command ``effx``, also as ``python -m effx``."""

from __future__ import annotations

import sys

from effx import signals


def main() -> None:
    """Run the command line and exit with a code of :data:`effx.cli.EXIT_CODES`.

    Signals are handled first, so that one that arrives while the command line is imported is handled too.
    """
    signals.install_until_exit()
    try:
        from effx.cli import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt as stop:
        code = signals.exit_code(stop)
    signals.exit_process(code)


if __name__ == "__main__":
    main()
