"""All checks, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from effx.doctor import machine, software
from effx.doctor.finding import Finding, Topic
from effx.errors import one_line


def examine(folder: str | Path = ".") -> list[Finding]:
    """Check this machine.

    Args:
        folder: where results would be written.
    """
    checks: list[tuple[Topic, Callable[[], Iterator[Finding]]]] = [
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
        ("energy", machine.power_rails),
        ("limits", machine.limits),
        ("disk", lambda: machine.disk(Path(folder))),
    ]
    findings: list[Finding] = []
    for topic, check in checks:
        try:
            findings += check()
        except Exception as error:  # a check that fails unexpectedly must not hide the others
            message = one_line(error)
            findings.append(Finding(topic, "check", "broken", f"{type(error).__name__}: {message}"))
    return findings
