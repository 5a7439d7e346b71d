"""Copy results without labels and predictions, for data sets that may not be redistributed.

    python benchmarks/share_results.py RESULTS OUT

Labels and predictions are removed, the path of the rows is shortened to its last two names, and samples are
rounded to nanoseconds. Reports show such results, but without resampling of rows and paired comparisons.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from effx import files, results
from effx.results import Run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for run in results.find([options.results]):
        path = options.out / f"{run.id}.json"
        files.write_json(path, without_rows(run).to_json(), indented=False)
        print(path)


def without_rows(run: Run) -> Run:
    """Return a result without labels, predictions and the full path of the rows."""
    source = "/".join(Path(run.quality.source).parts[-2:])
    return replace(
        run,
        quality=replace(run.quality, predictions=[], labels=[], groups=[], source=source),
        workloads=[
            replace(one, blocks_s=[[round(sample, 9) for sample in block] for block in one.blocks_s])
            for one in run.workloads
        ],
    )


if __name__ == "__main__":
    main()
