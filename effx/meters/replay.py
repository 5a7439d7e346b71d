"""A recorded trace instead of a device, to reproduce a measurement or to test code that reads meters.

``replay:PATH`` is JSON or CSV. JSON has ``device``, ``recorded`` (date), ``command``, ``t_s`` (seconds,
increasing) and ``counter_j``, ``power_w`` or both, each as long as ``t_s``; and optionally
``power_window_s``, the time over which the sensor averages, and ``power_limit_w``, the limit. In CSV,
everything except the columns is in comments above them (``# device: ...``). The trace begins with the first
window; a window that ends after the trace fails.
"""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

from effx import records
from effx.errors import ArtifactError
from effx.host.sensors import Sensor, UnavailableError
from effx.meters import trace
from effx.meters.protocol import Period, Reading
from effx.meters.sampler import Clock
from effx.meters.trace import Sample
from effx.results import Facts
from effx.specs.meters import EnergySource

_HEADER = ("device", "recorded", "command")


class ReplayMeter:
    """Windows of a recorded trace."""

    reason: str | None = None
    chosen_because = "opened directly"
    floor_w: float | None = None
    lag_s = 0.0

    def __init__(
        self,
        path: Path,
        header: dict[str, str],
        samples: list[Sample],
        sensor: Sensor,
        clock: Clock,
        limit_w: float | None = None,
    ) -> None:
        self.limit_w = limit_w
        self.name, self._sensor = f"replay:{path.name}", sensor
        self._header, self._samples, self._clock = header, samples, clock
        self.source: EnergySource = "integrated" if samples[0].counter_j is None else "counter"
        self._began_s: float | None = None
        self._start_s = 0.0

    def describe(self) -> Facts:
        times = [sample.after_s for sample in self._samples]
        ticks = trace.ticks(self._samples)
        gaps = sorted(b.time_s - a.time_s for a, b in zip(ticks, ticks[1:], strict=False))
        return {
            **self._header,
            "domains": ["as recorded"],
            "power_window_s": self._sensor.window_s,
            "tick_s": gaps[len(gaps) // 2] if gaps else None,
            "period_s": (times[-1] - times[0]) / (len(times) - 1),
            "gain_tolerance": trace.GAIN,
            "chosen_because": self.chosen_because,
        }

    def start(self) -> None:
        now = self._clock.now()
        if self._began_s is None:
            self._began_s = now - self._samples[0].after_s
        self._start_s = now - self._began_s

    def stop(self, cpu_s: float, during: Period | None = None) -> Reading:
        assert self._began_s is not None
        stop_s = self._clock.now() - self._began_s
        in_trace = None if during is None else (during[0] - self._began_s, during[1] - self._began_s)
        if stop_s > self._samples[-1].after_s:
            return Reading(
                None, f"the trace ends at {self._samples[-1].after_s:.3g} s, before the window ends"
            )
        window = [sample for sample in self._samples if self._start_s <= sample.after_s <= stop_s]
        if len(window) < 2:
            return Reading(None, f"{len(window)} samples of the trace in the window; use a longer window")
        if self.source == "integrated":
            return trace.power_reading(
                window, self._sensor, gain=trace.GAIN, limit_w=self.limit_w, during=in_trace
            )
        has_power = window[0].power_w is not None
        return trace.counter_reading(
            window,
            self._sensor if has_power else None,
            tick_s=None,
            gain=trace.GAIN,
            limit_w=self.limit_w,
            during=in_trace,
        )

    def close(self) -> None: ...


def open(argument: str = "", *, worker_pids: object = None, clock: Clock | None = None) -> ReplayMeter:
    """Open ``replay:PATH``.

    Raises:
        UnavailableError: the file is missing or is not a trace.
    """
    path = Path(argument)
    try:
        value = _from_csv(path) if path.suffix == ".csv" else records.read_foreign_json(path)
        header = {key: str(value[key]) for key in _HEADER}
        sensor = Sensor("recorded power", float(value.get("power_window_s") or 0.0))
        limit_w = float(value["power_limit_w"]) if value.get("power_limit_w") else None
        times = [float(time) for time in value["t_s"]]
        columns = {key: [float(x) for x in value[key]] for key in ("counter_j", "power_w") if value.get(key)}
    except ArtifactError as error:
        raise UnavailableError(str(error)) from error
    except (ValueError, OverflowError, KeyError, TypeError, csv.Error) as error:
        raise UnavailableError(f"{path} is not a recorded trace ({error!r})") from error
    numbers = [*times, *(x for column in columns.values() for x in column)]
    rising = all(b > a for a, b in zip(times, times[1:], strict=False))
    lengths = {len(times), *map(len, columns.values())}
    if (
        not columns
        or len(times) < 2
        or not rising
        or len(lengths) > 1
        or not all(map(math.isfinite, numbers))
    ):
        raise UnavailableError(
            f"{path}: expected increasing t_s, and as many numbers in counter_j, power_w or both"
        )
    empty = [None] * len(times)
    rows = zip(times, columns.get("counter_j", empty), columns.get("power_w", empty), strict=True)
    samples = [Sample(t_s, t_s, counter_j, power_w) for t_s, counter_j, power_w in rows]
    return ReplayMeter(path, header, samples, sensor, clock or Clock(), limit_w)


def _from_csv(path: Path) -> dict[str, Any]:
    lines = records.read_regular(path, limit_bytes=records.MAX_FOREIGN_BYTES).decode().splitlines()
    comments = [line[1:].partition(":") for line in lines if line.startswith("#")]
    rows = list(csv.DictReader(line for line in lines if line and not line.startswith("#")))
    columns = {key: [row[key] for row in rows] for key in (rows[0] if rows else ())}
    return {**{key.strip(): value.strip() for key, _, value in comments}, **columns}
