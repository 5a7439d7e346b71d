"""CPU energy by Linux powercap: microjoule counters of each package (RAPL, Intel and AMD).

Packages and their DRAM are summed. ``psys`` contains the package, core and uncore are parts of it, and
``intel-rapl-mmio`` is the same package again: these are skipped. Counters wrap at ``max_energy_range_uj``:
after 262 kJ on many Intel processors and 65 kJ on many AMD processors, which takes minutes at full power. A
thread reads them much more often while a window is open, and adds up the differences, so wraps are corrected.
If a read fails, or is so late that a wrap may have been missed, the window fails.

The interval includes the misalignment only: neither manufacturer states a tolerance of the counters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from effx.host.sensors import BrokenSensorError, NoSensorError, SensorPermissionError
from effx.profile.meters import trace
from effx.profile.meters.protocol import Reading
from effx.profile.meters.sampler import Clock, Sampler, measure_tick
from effx.results import EnergySource, Facts

_ROOT = Path("/sys/class/powercap")
_PACKAGE_W = 1000.0  # more than any socket with its memory draws; bounds how fast a counter can wrap
_PERIOD_S = 0.5


@dataclass(frozen=True)
class _Domain:
    name: str
    energy: Path
    range_uj: int

    @property
    def wraps_s(self) -> float:
        """The shortest time in which the counter can wrap."""
        return self.range_uj * 1e-6 / _PACKAGE_W


@dataclass(frozen=True)
class _Sample:
    """One read of every domain, and the clock before and after it."""

    before_s: float
    after_s: float
    energies_uj: list[int]


class RaplMeter:
    """Sum of the packages' and DRAM's counters."""

    name = "rapl"
    source: EnergySource = "counter"
    reason: str | None = None
    chosen_because = "opened directly"
    floor_w: float | None = None

    def __init__(
        self,
        domains: list[_Domain],
        skipped: list[str],
        *,
        clock: Clock | None = None,
        threaded: bool = True,
    ) -> None:
        self._domains, self._skipped = domains, skipped
        self._clock = clock or Clock()
        self._tick_s = measure_tick(
            lambda: _read(domains[0].energy), self._clock, every_s=0.0002, limit_s=0.05
        )
        self._safe_s = min(domain.wraps_s for domain in domains)
        self.sampler = Sampler(self._sample, min(_PERIOD_S, self._safe_s / 8), threaded=threaded)

    @property
    def limit_w(self) -> float | None:
        """1 kW per package, more than any socket draws."""
        packages = [domain for domain in self._domains if not domain.name.endswith("dram")]
        return _PACKAGE_W * len(packages)

    @property
    def domains(self) -> list[str]:
        """What it reads, by name."""
        return [domain.name for domain in self._domains]

    def describe(self) -> Facts:
        return {
            "device": "CPU",
            "domains": self.domains,
            "skipped": self._skipped,
            "tick_s": self._tick_s,
            "period_s": self.sampler.period_s,
            "wraps_s": self._safe_s,
            "chosen_because": self.chosen_because,
        }

    def start(self) -> None:
        self.sampler.start()

    def stop(self, cpu_s: float) -> Reading:
        samples, error = self.sampler.stop()
        if isinstance(error, OSError | ValueError):  # a failed read is a failed window, never a wrap
            return Reading(None, f"a counter could not be read: {error}")
        if error is not None:
            raise error
        late_s = max(
            (this.after_s - last.before_s for last, this in zip(samples, samples[1:], strict=False)),
            default=0.0,
        )
        if late_s >= self._safe_s:
            return Reading(
                None,
                f"a wrap of a counter may have been missed: {late_s:.3g} s between two reads, and "
                f"{_PACKAGE_W:g} W wrap it in {self._safe_s:.3g} s",
            )
        spent_j = {
            domain.name: _spent_j([sample.energies_uj[number] for sample in samples], domain.range_uj)
            for number, domain in enumerate(self._domains)
        }
        return self._reading(samples, spent_j)

    def close(self) -> None:
        self.sampler.halt()

    def _reading(self, samples: Sequence[_Sample], spent_j: dict[str, float]) -> Reading:
        first, last = samples[0], samples[-1]
        joules = sum(spent_j.values())
        seconds = (last.before_s + last.after_s - first.before_s - first.after_s) / 2
        mean_w = joules / seconds if seconds > 0 else None
        late_s = (self._tick_s or 0.0) + max(first.after_s - first.before_s, last.after_s - last.before_s)
        short = last.after_s - first.before_s < trace.SHORT_S
        return Reading(
            joules,
            seconds=seconds,
            interval=trace.bounds(joules, late_s * (mean_w or 0.0), 0.0),
            flags=("short window",) if short else (),
            conditions={"mean_w": mean_w, "domains_j": spent_j},
        )

    def _sample(self) -> _Sample:
        before_s = self._clock.now()
        energies_uj = [_read(domain.energy) for domain in self._domains]
        return _Sample(before_s, self._clock.now(), energies_uj)


def open(
    argument: str = "",
    root: Path = _ROOT,
    *,
    worker_pids: object = None,
    clock: Clock | None = None,
    threaded: bool = True,
) -> RaplMeter:
    """Open the counters below ``root``.

    Raises:
        UnavailableError: no counters, or no permission to read them.
    """
    domains: dict[str, _Domain] = {}
    skipped: list[str] = []
    # intel-rapl-mmio:N is the same counter as intel-rapl:N
    for folder in sorted(root.glob("intel-rapl*:*")) if root.is_dir() else []:
        kind = _text(folder / "name")
        name = _domain_name(folder, root)
        package = folder.name.count(":") == 1 and re.fullmatch(r"package-\d+(-die-\d+)?", kind)
        if not (package or kind == "dram") or folder.name.startswith("intel-rapl-mmio") or name in domains:
            skipped.append(f"{folder.name} ({kind})")
            continue
        try:
            range_uj = _read(folder / "max_energy_range_uj")
            _read(folder / "energy_uj")
        except PermissionError as error:
            raise SensorPermissionError(
                f"no permission to read {folder}/energy_uj; run as root, or: "
                f"sudo chmod a+r {root}/intel-rapl:*/energy_uj"
            ) from error
        except (OSError, ValueError) as error:
            raise BrokenSensorError(f"{folder} cannot be read: {error}") from error
        domains[name] = _Domain(name, folder / "energy_uj", range_uj)
    if not domains:
        raise NoSensorError(
            f"no CPU energy counters under {root} (virtual machines and most clouds hide them); "
            "run on bare metal, or estimate the energy with the meter model:WATTS_PER_CORE"
        )
    return RaplMeter(list(domains.values()), skipped, clock=clock, threaded=threaded)


def _domain_name(folder: Path, root: Path) -> str:
    """Return ``package-0``, or ``package-0/dram`` for a domain inside it."""
    package, part = re.fullmatch(r"(.+?:[^:]+)(:.*)?", folder.name).groups()  # type: ignore[union-attr]
    kind = _text(folder / "name")
    return f"{_text(root / package / 'name')}/{kind}" if part else kind


def _spent_j(energies_uj: Sequence[int], range_uj: int) -> float:
    """Return the sum of a counter's differences, with wraps corrected."""
    pairs = zip(energies_uj, energies_uj[1:], strict=False)
    return sum((this - last) % range_uj for last, this in pairs) * 1e-6


def _read(path: Path) -> int:
    return int(path.read_text())


def _text(path: Path) -> str:
    return path.read_text().strip() if path.is_file() else ""
