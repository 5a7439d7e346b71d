"""CPU energy by Linux powercap: microjoule counters of each package (RAPL, Intel and AMD).

Packages and their DRAM are summed; ``psys`` contains the package and core/uncore are parts of
it, so neither is added. Counters wrap at ``max_energy_range_uj``; one wrap between two reads is
undone, and windows are short against the time to wrap twice (minutes at full power).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from effx.profile.meters.protocol import Reading, UnavailableError
from effx.results import EnergySource

_ROOT = Path("/sys/class/powercap")


@dataclass(frozen=True)
class _Domain:
    energy: Path
    range_uj: int


class RaplMeter:
    """Sum of the packages' and DRAM's counters."""

    name = "rapl"
    source: EnergySource = "counter"
    reason: str | None = None

    def __init__(self, domains: list[_Domain]) -> None:
        self._domains = domains
        self._first: list[int] = []

    def start(self) -> None:
        self._first = [_read(domain.energy) for domain in self._domains]

    def stop(self, cpu_s: float) -> Reading:
        try:
            last = [_read(domain.energy) for domain in self._domains]
        except (OSError, ValueError) as error:  # a failed read is a failed window, never a wrap
            return Reading(None, f"a counter could not be read: {error}")
        spans = zip(self._domains, self._first, last, strict=True)
        return Reading(sum((end - start) % domain.range_uj for domain, start, end in spans) * 1e-6)


def open(argument: str = "", root: Path = _ROOT) -> RaplMeter:
    """Open the counters below ``root``.

    Raises:
        UnavailableError: there are none, or they may not be read.
    """
    packages = sorted(root.glob("intel-rapl:*")) if root.is_dir() else []
    domains: list[_Domain] = []
    for folder in packages:
        name_file = folder / "name"
        name = name_file.read_text().strip() if name_file.is_file() else ""
        package = re.fullmatch(r"package-\d+", name) and folder.name.count(":") == 1
        if package or name == "dram":
            try:
                _read(folder / "energy_uj")
                domains.append(_Domain(folder / "energy_uj", _read(folder / "max_energy_range_uj")))
            except PermissionError as error:
                raise UnavailableError(
                    f"{folder}/energy_uj may not be read; run as root, or: "
                    f"sudo chmod a+r {root}/intel-rapl:*/energy_uj"
                ) from error
            except (OSError, ValueError) as error:
                raise UnavailableError(f"{folder} cannot be read: {error}") from error
    if not domains:
        raise UnavailableError(
            f"no CPU energy counters under {root} (virtual machines and most clouds hide them); "
            "run on bare metal, or estimate with --meter model:WATTS_PER_CORE"
        )
    return RaplMeter(domains)


def _read(path: Path) -> int:
    return int(path.read_text())
