"""All checks, in the order in which they are told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from effx.doctor import machine, software
from effx.doctor.line import Line


def examine(folder: str | Path = ".") -> list[Line]:
    """Look at this machine.

    Args:
        folder: where work would be written.
    """
    checks: list[tuple[str, Callable[[], Iterator[Line]]]] = [
        ("python", software.python),
        ("packages", software.packages),
        ("packages", software.clashes),
        ("runtimes", software.providers),
        ("runtimes", software.openvino),
        ("runtimes", software.torch),
        ("runtimes", software.tensorrt),
        ("processor", machine.processor),
        ("gpu", machine.gpu),
        ("energy", machine.powercap),
        ("energy", machine.rails),
        ("limits", machine.limits),
        ("disk", lambda: machine.disk(Path(folder))),
    ]
    found: list[Line] = []
    for topic, check in checks:
        try:
            found += check()
        except Exception as error:  # one check that meets something strange must not hide the others
            told = " ".join(str(error).split())[:200]
            found.append(Line(topic, "check", "broken", f"{type(error).__name__}: {told}"))
    return found
