"""Time to create a report over many results, and responsiveness of its page.

    python benchmarks/report_scale.py --results 10000 --workspace /tmp/scale

The results are simulated (tests/analysis/simulated_results.py): one task, one host and all engines
different, the slowest case; --hosts distributes them over hosts. With Chromium (EFFX_CHROMIUM or on the
path) and playwright, opening, sorting, filtering and hovering are timed. Prints one line of JSON.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import pstats
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from effx.report import report
from tests.analysis import simulated_results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=int, default=10_000)
    parser.add_argument("--hosts", type=int, default=1)
    parser.add_argument("--rows", type=int, default=872, help="validation rows in each result")
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--profile", action="store_true", help="print a profile of the Python code")
    options = parser.parse_args()
    results, out = options.workspace / "results", options.workspace / "report"
    if not results.is_dir():
        for number in range(options.results):
            run = simulated_results.run(
                number // options.hosts, n=options.rows, session=number // 100, on=number % options.hosts
            )
            simulated_results.write([run], results)
    profiler = cProfile.Profile()
    if options.profile:
        profiler.enable()
    start = time.perf_counter()
    report([results], out)
    took = time.perf_counter() - start
    profiler.disable()
    if options.profile:
        pstats.Stats(profiler, stream=sys.stderr).sort_stats("cumulative").print_stats(45)
    page = out / "index.html"
    measurements = {
        "results": options.results,
        "hosts": options.hosts,
        "results_mib": round(sum(path.stat().st_size for path in results.glob("*.json")) / 2**20),
        "report_s": round(took, 1),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "page_mib": round(page.stat().st_size / 2**20, 1),
        **usable(page),
    }
    print(json.dumps(measurements))


def usable(page: Path) -> dict[str, float]:
    """Return the milliseconds that the page takes to open, sort, filter and respond to hovering."""
    from tests.report.browser import executable, launch

    if executable() is None:
        return {}
    with launch() as browser:
        tab = browser.new_page()
        start = time.perf_counter()
        tab.goto(page.resolve().as_uri())
        tab.wait_for_selector("#engines")
        opened = time.perf_counter()
        tab.evaluate(
            "document.querySelector('section[aria-labelledby=engines] th:nth-child(4) button').click()"
        )
        sorted_ = time.perf_counter()
        tab.fill("section[aria-labelledby=engines] input[type=search]", "int8 tokens")
        while not tab.evaluate(
            "document.querySelector('section[aria-labelledby=engines] .status').textContent.includes(' of ')"
        ):
            tab.wait_for_timeout(5)
        filtered = time.perf_counter()
        moves = tab.evaluate(
            """() => { const chart = document.querySelector('.chart'), box = chart.getBoundingClientRect();
            const start = performance.now();
            for (let k = 0; k < 50; k++) chart.dispatchEvent(new PointerEvent('pointermove',
              {clientX: box.left + 80 + 8 * k, clientY: box.top + 100 + 3 * k, pointerType: 'mouse'}));
            return (performance.now() - start) / 50; }"""
        )
        return {
            "open_ms": round(1e3 * (opened - start)),
            "sort_ms": round(1e3 * (sorted_ - opened)),
            "filter_ms": round(1e3 * (filtered - sorted_)),
            "hover_ms": round(moves, 2),
        }


if __name__ == "__main__":
    main()
