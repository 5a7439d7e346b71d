"""The sweeps behind docs/results/tickets: super tickets of one model on real data.

    python benchmarks/ticket_sweep.py --model MODEL --data DATA -o WORKSPACES [--results DIR] [JOB ...]

DATA has a folder per task. Jobs, by default all in this order:

    sst2-2000   2000 SST-2 training sentences, all kinds, levels 10 to 80, 3 seeds
    mrpc        all of MRPC, likewise
    halving     both by successive halving, in the same workspaces; every cell that the search needs is
                counted, even if it was trained already
    sst2        all of SST-2, winning tickets, levels 10 to 40, one seed

It can be interrupted and resumed. Several processes at once share the cells of a grid. Results are written
after every seed: per job a folder with table.json, table.csv, table.md, the figure, heat maps of the
importance scores, and run.json (command, host, versions, date, seconds of each cell).
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

import effx
from effx import files, progress
from effx.artifacts import now
from effx.host import identity
from effx.recipe import sweeps
from effx.recipe.execute.store import CellStore
from effx.specs.tickets import TicketSearchSettings


@dataclass(frozen=True)
class Job:
    """A sweep: its task, workspace and settings."""

    task: str
    workspace_folder: str
    settings: TicketSearchSettings


_COMMON = TicketSearchSettings.of(levels="10,...,80", seeds=3, keep="winning", max_length=128)
_SST2 = _COMMON.replace(limit=2000, epochs=4.0)
_MRPC = _COMMON.replace(epochs=3.0)
JOBS: dict[str, Job] = {
    "sst2-2000": Job("sst2", "sst2-2000", _SST2),
    "mrpc": Job("mrpc", "mrpc", _MRPC),
    "sst2-2000-halving": Job("sst2", "sst2-2000", _SST2.replace(search="halving")),
    "mrpc-halving": Job("mrpc", "mrpc", _MRPC.replace(search="halving")),
    "sst2": Job(
        "sst2",
        "sst2",
        _COMMON.replace(levels="10,...,40", kinds=("winning",), seeds=1, epochs=2.0),
    ),
}
ALIASES = {"halving": ("sst2-2000-halving", "mrpc-halving")}


def main() -> None:
    """Run the named jobs, seed by seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("jobs", nargs="*", metavar="JOB", help=", ".join([*JOBS, *ALIASES]))
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--out", type=Path, required=True, help="folder of the workspaces")
    parser.add_argument("--results", type=Path, default=Path("docs/results/tickets"))
    options = parser.parse_args()
    host = identity.host().to_json()  # read now, because the checkout may change while this runs
    names = [name for given in options.jobs or JOBS for name in ALIASES.get(given, (given,))]
    if wrong := [name for name in names if name not in JOBS]:
        parser.error(f"unknown job '{wrong[0]}': choose from {', '.join([*JOBS, *ALIASES])}")
    for name in names:
        job = JOBS[name]
        halving = job.settings.search == "halving"  # its rungs depend on how many seeds there are
        for seeds in range(job.settings.seeds if halving else 1, job.settings.seeds + 1):
            progress.say(f"{name}: {seeds} of {job.settings.seeds} seeds")
            settings = job.settings.replace(seeds=seeds)
            workspace_folder = options.out / job.workspace_folder
            table = sweeps.tickets(
                job.task,
                options.model,
                out=workspace_folder,
                data_folder=options.data / job.task,
                settings=settings,
            )
            copy_results(table, workspace_folder, options.results / name, host)


def copy_results(table: dict[str, Any], workspace_folder: Path, folder: Path, host: dict[str, Any]) -> None:
    """Copy tables and figures, and write run.json."""
    with files.new_folder(folder, replace=True) as temporary:
        for path in [*workspace_folder.glob("table.*"), *workspace_folder.glob("phases.*")]:
            shutil.copyfile(path, temporary / path.name)
        for seed in table["seeds"]:
            for suffix in ("json", "svg"):
                name = f"importance-s{seed}.{suffix}"
                shutil.copyfile(workspace_folder / name, temporary / name)
        seconds = {
            record.name: record.seconds
            for record in CellStore(workspace_folder).records()
            if record.stage in ("tickets-full", "ticket")
        }
        files.write_json(
            temporary / "run.json",
            {
                "command": shlex.join(["python", *sys.argv]),
                "date": now(),
                "host": host,
                "threads": torch.get_num_threads(),
                "effx": effx.__version__,
                "torch": torch.__version__,
                "transformers": transformers.__version__,
                "training_s": seconds,
            },
        )


if __name__ == "__main__":
    main()
