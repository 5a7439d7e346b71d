"""CPU energy by Linux powercap: microjoule counters of each package (RAPL, Intel and AMD).

Packages and their DRAM are summed. ``psys`` contains the package, core and uncore are parts of it, and
``intel-rapl-mmio`` is the same package again: these are skipped. AMD processors of several dies (Zen 1 and 2)
show the counter of the socket once per die: dies with the same count are one counter, and are counted once.
Dies with separate counters are summed.

Counters wrap at ``max_energy_range_uj``: after 262 kJ on many Intel processors and 65 kJ on many AMD
processors, which takes minutes at full power. A thread reads them much more often while a window is open, and
adds up the differences, so wraps are corrected. A window fails if

- a read fails, or is so late that a wrap may have been missed;
- a counter leaves its range, jumps, runs backwards or is reset: a difference that the package's power limit
  does not permit in that time;
- a package's counter does not move.

The interval includes the misalignment only: neither manufacturer states a tolerance of the counters.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from pathlib import Path

from effx.host.sensors import BrokenSensorError, NoSensorError, SensorPermissionError
from effx.meters import trace
from effx.meters.protocol import Period, Reading
from effx.meters.sampler import Clock, Sampler, measure_tick
from effx.results import Facts
from effx.specs.meters import EnergySource

_ROOT = Path("/sys/class/powercap")
_PACKAGE_W = 1000.0  # more than any socket with its memory draws; bounds how fast a counter can wrap
_BURST = 2.0
"""Power limits hold on average; bursts of milliseconds reach up to twice (Intel's PL4 to PL1)."""
_PERIOD_S = 0.1
_TICK_S = 0.05  # assumed where no tick was seen; counters are updated every millisecond
_STUCK_S = 0.5
_OUTLIER = 3.0
_MIRROR_UJ = 1_000_000  # dies that show one counter differ by what is counted between two reads
_MIRROR_READS = 5
_LEAST_STEPS = 5
_PACKAGE = re.compile(r"package-\d+(-die-\d+)?")


@dataclass(frozen=True)
class _Domain:
    name: str
    energy: Path
    range_uj: int
    limit_w: float = _PACKAGE_W
    """The largest power at which it can count for the duration of a step."""

    @property
    def wraps_s(self) -> float:
        """The shortest time in which the counter can wrap."""
        return self.range_uj * 1e-6 / _PACKAGE_W

    @property
    def is_package(self) -> bool:
        return not self.name.endswith("dram")


@dataclass(frozen=True)
class _Sample:
    """One read of every domain, and the clock before and after it."""

    before_s: float
    after_s: float
    energies_uj: list[int]


@dataclass(frozen=True)
class _Step:
    """What a counter counted between two reads."""

    joules: float
    seconds: float
    """The longest time between the two reads."""


class _FaultError(Exception):
    """A counter cannot be trusted; the message says why."""


class RaplMeter:
    """Sum of the packages' and DRAM's counters."""

    name = "rapl"
    source: EnergySource = "counter"
    reason: str | None = None
    chosen_because = "opened directly"
    floor_w: float | None = None
    lag_s = 0.0

    def __init__(
        self,
        domains: list[_Domain],
        skipped: list[str],
        *,
        clock: Clock | None = None,
        threaded: bool = True,
    ) -> None:
        self._clock = clock or Clock()
        self._domains, mirrors = _without_mirrors(domains, self._clock)
        self._skipped = skipped + mirrors
        self._tick_s = measure_tick(
            lambda: _read(domains[0].energy), self._clock, every_s=0.0002, limit_s=0.05
        )
        self._safe_s = min(domain.wraps_s for domain in domains)
        self.sampler = Sampler(self._sample, min(_PERIOD_S, self._safe_s / 8), threaded=threaded)

    @property
    def limit_w(self) -> float | None:
        """The sum of the packages' limits: twice the highest power limit that the system shows, or 1 kW."""
        return sum(domain.limit_w for domain in self._domains if domain.is_package)

    @property
    def domains(self) -> list[str]:
        """What it reads, by name."""
        return [domain.name for domain in self._domains]

    def describe(self) -> Facts:
        return {
            "device": "CPU",
            "domains": self.domains,
            "skipped": self._skipped,
            "limit_w": self.limit_w,
            "tick_s": self._tick_s,
            "period_s": self.sampler.period_s,
            "wraps_s": self._safe_s,
            "chosen_because": self.chosen_because,
        }

    def start(self) -> None:
        self.sampler.start()

    def stop(self, cpu_s: float, during: Period | None = None) -> Reading:
        samples, error = self.sampler.stop()
        if isinstance(error, OSError | ValueError):  # a failed read is a failed window, never a wrap
            return Reading(None, f"a counter could not be read: {error}")
        if error is not None:
            raise error
        try:
            self._check_gaps(samples)
            steps = [self._steps(samples, number) for number in range(len(self._domains))]
            self._check_mirrors(steps)
        except _FaultError as fault:
            return Reading(None, str(fault))
        flags = self._suspicions(steps)
        first, last = trace.inside([(sample.before_s, sample.after_s) for sample in samples], during)
        if last <= first:
            return Reading(None, f"{len(samples)} reads are too few; use a longer window")
        spent_j = {
            domain.name: sum(step.joules for step in of_domain[first:last])
            for domain, of_domain in zip(self._domains, steps, strict=True)
        }
        reading = self._reading(samples[first], samples[last], spent_j)
        begin, end = during or (samples[0].before_s, samples[-1].after_s)
        short = (trace.SHORT_WINDOW,) if end - begin < trace.SHORT_S else ()
        return replace(reading, flags=(*flags, *short))

    def close(self) -> None:
        self.sampler.halt()

    def _reading(self, first: _Sample, last: _Sample, spent_j: dict[str, float]) -> Reading:
        joules = sum(spent_j.values())
        seconds = (last.before_s + last.after_s - first.before_s - first.after_s) / 2
        mean_w = joules / seconds if seconds > 0 else None
        late_s = (self._tick_s or 0.0) + max(first.after_s - first.before_s, last.after_s - last.before_s)
        interval = trace.bounds(joules, late_s * (mean_w or 0.0), 0.0)
        return Reading(
            joules,
            seconds=seconds,
            interval=interval,
            interval_without_gain=interval,
            conditions={"mean_w": mean_w, "domains_j": spent_j},
        )

    def _sample(self) -> _Sample:
        before_s = self._clock.now()
        energies_uj = [_read(domain.energy) for domain in self._domains]
        return _Sample(before_s, self._clock.now(), energies_uj)

    def _check_gaps(self, samples: Sequence[_Sample]) -> None:
        late_s = max((this.after_s - last.before_s for last, this in pairwise(samples)), default=0.0)
        if late_s >= self._safe_s:
            raise _FaultError(
                f"a counter may have wrapped unnoticed: {late_s:.3g} s between two reads; at "
                f"{_PACKAGE_W:g} W it wraps in {self._safe_s:.3g} s"
            )

    def _steps(self, samples: Sequence[_Sample], number: int) -> list[_Step]:
        """Return what one domain counted from read to read, with wraps corrected.

        Raises:
            _FaultError: the values are impossible, or a package's counter is stuck.
        """
        domain, tick_s = self._domains[number], self._tick_s or _TICK_S
        steps: list[_Step] = []
        wraps: list[int] = []
        still_s = 0.0
        for last, this in pairwise(samples):
            from_uj, to_uj = last.energies_uj[number], this.energies_uj[number]
            seconds = this.after_s - last.before_s
            possible_uj = domain.limit_w * (seconds + tick_s) * 1e6
            step_uj = to_uj - from_uj
            for value_uj in (from_uj, to_uj):
                if not 0 <= value_uj <= domain.range_uj:
                    raise _FaultError(
                        f"the counter of {domain.name} shows {value_uj} µJ, its range is {domain.range_uj} µJ"
                    )
            if step_uj < 0 and step_uj + domain.range_uj <= possible_uj:
                step_uj += domain.range_uj
                wraps.append(len(steps))
            elif step_uj < 0:
                what = "was reset" if to_uj <= possible_uj else f"ran backwards by {-step_uj * 1e-6:.3g} J"
                raise _FaultError(f"the counter of {domain.name} {what} in the window")
            elif step_uj > possible_uj:
                raise _FaultError(
                    f"the counter of {domain.name} jumped by {step_uj * 1e-6:.3g} J in {seconds:.2g} s: "
                    f"more than its limit of {domain.limit_w:.0f} W permits"
                )
            still_s = 0.0 if step_uj else still_s + (this.before_s - last.after_s)
            if domain.is_package and still_s > max(_STUCK_S, 50 * tick_s if self._tick_s else 0.0):
                raise _FaultError(f"the counter of {domain.name} is stuck: no change in {still_s:.2g} s")
            steps.append(_Step(step_uj * 1e-6, seconds))
        outlier = _outlier(steps, tick_s)
        if (
            outlier is not None and outlier in wraps
        ):  # a reset close to the end of the range looks like a wrap
            raise _FaultError(f"the counter of {domain.name} was reset in the window, or wrapped in a burst")
        return steps

    def _check_mirrors(self, steps: Sequence[Sequence[_Step]]) -> None:
        """Raise if two dies of a socket count the same from read to read: one counter with two offsets."""
        tick_s = self._tick_s or _TICK_S
        for (one, of_one), (other, of_other) in combinations(zip(self._domains, steps, strict=True), 2):
            if not _same_socket(one, other) or len(of_one) < 2 * _LEAST_STEPS:
                continue
            alike = all(
                abs(a.joules - b.joules) <= 0.01 * max(a.joules, b.joules) + _slack_j(of_one, tick_s)
                for a, b in zip(of_one, of_other, strict=True)
            )
            if alike and sum(step.joules for step in of_one) > 1.0 and tick_s < _PERIOD_S / 10:
                raise _FaultError(
                    f"{one.name} and {other.name} count the same in every step: two names of one counter?"
                )

    def _suspicions(self, steps: Sequence[Sequence[_Step]]) -> tuple[str, ...]:
        flags = []
        for domain, of_domain in zip(self._domains, steps, strict=True):
            outlier = _outlier(of_domain, self._tick_s or _TICK_S)
            if outlier is not None:
                flags.append(
                    f"suspect: {domain.name} counted {of_domain[outlier].joules:.3g} J in one step of "
                    f"{of_domain[outlier].seconds:.2g} s"
                )
            if (
                not domain.is_package
                and len(of_domain) >= _LEAST_STEPS
                and not any(s.joules for s in of_domain)
            ):
                flags.append(f"suspect: the counter of {domain.name} does not move")
        return tuple(flags)


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
        package = folder.name.count(":") == 1 and _PACKAGE.fullmatch(kind)
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
        if range_uj <= 0:
            raise BrokenSensorError(f"{folder}/max_energy_range_uj is {range_uj}")
        domains[name] = _Domain(name, folder / "energy_uj", range_uj, _limit_w(folder))
    if not domains:
        raise NoSensorError(
            f"no CPU energy counters under {root} (virtual machines and most clouds hide them); "
            "run on bare metal, or estimate the energy with the meter model:WATTS_PER_CORE"
        )
    return RaplMeter(list(domains.values()), skipped, clock=clock, threaded=threaded)


def _without_mirrors(domains: Sequence[_Domain], clock: Clock) -> tuple[list[_Domain], list[str]]:
    """Return the domains without dies that show another die's counter, and a note about each of those."""
    alike = {
        (one.name, other.name): True for one, other in combinations(domains, 2) if _same_socket(one, other)
    }
    if alike:
        for _ in range(_MIRROR_READS):
            values_uj = {domain.name: _read(domain.energy) for domain in domains}
            for one_name, other_name in alike:
                difference_uj = abs(values_uj[one_name] - values_uj[other_name])
                alike[one_name, other_name] &= difference_uj <= _MIRROR_UJ
            clock.sleep(0.005)
    mirrored: dict[str, str] = {}
    for (one_name, other_name), same in alike.items():
        if same and one_name not in mirrored:
            mirrored.setdefault(other_name, one_name)
    # the memory of a die that mirrors another is that of the same socket
    hidden = {
        domain.name: first
        for domain in domains
        for die, first in mirrored.items()
        if domain.name.partition("/")[0] == die
    }
    kept = [domain for domain in domains if domain.name not in hidden]
    return kept, [f"{name} (mirrors {first})" for name, first in hidden.items()]


def _same_socket(one: _Domain, other: _Domain) -> bool:
    """Whether both are dies of one package."""
    sockets = [re.fullmatch(r"(package-\d+)-die-\d+", domain.name) for domain in (one, other)]
    return all(sockets) and len({match[1] for match in sockets if match}) == 1


def _outlier(steps: Sequence[_Step], tick_s: float) -> int | None:
    """Return the number of a step with several times the power of all others; None: there is none."""
    if len(steps) < _LEAST_STEPS:
        return None
    watts = [step.joules / (step.seconds + tick_s) for step in steps]
    highest, next_highest = sorted(watts, reverse=True)[:2]
    return watts.index(highest) if highest > _OUTLIER * next_highest else None


def _slack_j(steps: Sequence[_Step], tick_s: float) -> float:
    """Return the joules of two ticks at the mean power of the steps."""
    seconds = sum(step.seconds for step in steps)
    return 2 * tick_s * sum(step.joules for step in steps) / seconds if seconds > 0 else math.inf


def _limit_w(folder: Path) -> float:
    """Return a package's highest power for a short time, from its power limits if the system shows them."""
    limits_w = [uw * 1e-6 for uw in _numbers(folder.glob("constraint_*_*_uw")) if uw > 0]
    return min(_PACKAGE_W, _BURST * max(limits_w)) if limits_w else _PACKAGE_W


def _numbers(paths: Iterable[Path]) -> Iterable[int]:
    for path in paths:
        try:
            yield _read(path)
        except (OSError, ValueError):  # a limit that cannot be read is no limit
            continue


def _domain_name(folder: Path, root: Path) -> str:
    """Return ``package-0``, or ``package-0/dram`` for a domain inside it."""
    package, part = re.fullmatch(r"(.+?:[^:]+)(:.*)?", folder.name).groups()  # type: ignore[union-attr]
    kind = _text(folder / "name")
    return f"{_text(root / package / 'name')}/{kind}" if part else kind


def _read(path: Path) -> int:
    return int(path.read_text())


def _text(path: Path) -> str:
    return path.read_text().strip() if path.is_file() else ""
