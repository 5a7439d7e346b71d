"""Screenshots of a report's page for docs/report: light and dark scheme, and a phone.

    python benchmarks/screenshots.py REPORT docs/report

Needs playwright and Chromium (EFFX_CHROMIUM or on the path).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.report.browser import launch

DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 860}}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True,
}  # fmt: skip
SCREENSHOTS: dict[str, dict[str, Any]] = {
    "report-light.png": {**DESKTOP, "color_scheme": "light"},
    "report-dark.png": {**DESKTOP, "color_scheme": "dark"},
    "report-phone.png": {**PHONE, "color_scheme": "light"},
}
"""File -> options of the browser's context."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("report", type=Path, help="the report's folder")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with launch() as browser:
        for name, context in SCREENSHOTS.items():
            tab = browser.new_context(**context).new_page()
            tab.goto((options.report / "index.html").resolve().as_uri())
            tab.wait_for_selector("#engines")
            tab.screenshot(path=str(options.out / name))
            print(options.out / name)


if __name__ == "__main__":
    main()
