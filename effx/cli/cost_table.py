"""``effx cost-table``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from effx.cli import options
from effx.specs import measurement
from effx.specs.backends import BUILDABLE
from effx.specs.data import DataSource

if TYPE_CHECKING:
    from effx.optimize.cost_table import CostTable


@click.command("cost-table")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option(
    "--variant",
    default="fp32",
    show_default=True,
    metavar="VARIANT",
    help="Precision of the graphs, as in effx export: fp32, int8, bf16, ...",
)
@click.option(
    "--backend",
    default="onnxruntime",
    show_default=True,
    type=options.Word(BUILDABLE, "backend"),
    help="Runtime.",
)
@options.device
@click.option(
    "--for",
    "workloads",
    multiple=True,
    default=("single",),
    show_default=True,
    type=options.Grammar(measurement.built_for, measurement.BUILT_FOR_GRAMMAR),
    help="Workload: single rows at their real lengths, batches of B rows of L tokens, or offline batches of "
    "32 rows. Repeatable.",
)
@options.data("For the lengths of rows. Default: where the checkpoint's rows came from.", labelled=False)
@click.option("--threads", type=click.IntRange(min=1), help="Compute threads. Default: all processors.")
@click.option(
    "--rounds", type=click.IntRange(min=6), default=25, show_default=True,
    help="Rounds in which everything is timed once, in random order.",
)  # fmt: skip
@click.option(
    "--checks", type=click.IntRange(min=1), default=20, show_default=True,
    help="Number of random structures whose cost is predicted and measured.",
)  # fmt: skip
@click.option(
    "--coarse", is_flag=True,
    help="Measure every third number of heads, and about half as many numbers of neurons; costs between them "
    "are interpolated. This takes about half the time.",
)  # fmt: skip
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Random seed.")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), default=Path("costs"), show_default=True, metavar="DIR",
    help="Folder of the tables, a file for each workload.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the tables as JSON.")
def command(
    checkpoint: Path,
    variant: str,
    backend: str,
    device: str | None,
    workloads: tuple[str, ...],
    data_folder: DataSource | None,
    threads: int | None,
    rounds: int,
    checks: int,
    coarse: bool,
    seed: int,
    out: Path,
    as_json: bool,
) -> int:
    """Measure what attention and FFNs of every size cost on this machine.

    CHECKPOINT is an unreduced fine-tuned model. Small graphs of its first layers, with all numbers of heads
    and a series of numbers of FFN neurons, are built and timed in turns. The cost of any structure is
    predicted from them; random structures, measured in the same way, show how good that is. Nothing is
    trained. Energy is not measured. Exit code 1: the median error of the predictions is above 10 % (single
    rows) or 5 % (batches), so that costs do not add up here.

    \b
    effx cost-table checkpoints/sst2-minilm-full-s0 --variant int8
    effx cost-table checkpoints/sst2-minilm-full-s0 --backend openvino --for single --for 32x128
    """  # fmt: skip
    from effx import files
    from effx.optimize import measure_costs

    files.check_writable(out)
    tables = measure_costs.measure(
        checkpoint, variant=variant, backend=backend, device=device, workloads=workloads,
        data_folder=data_folder, threads=threads, rounds=rounds, checks=checks, seed=seed, coarse=coarse,
    )  # fmt: skip
    texts = []
    for table in tables:
        suffix = f".{table.device}" if table.device else ""
        path = out / f"{table.checkpoint}.{variant}.{backend}{suffix}.{table.workload}.json"
        table.write(path)
        texts.append(f"{_text(table)}\n{path}")
    printed = json.dumps([table.to_json() for table in tables], indent=1) if as_json else "\n\n".join(texts)
    click.echo(printed)
    return 0 if all(table.passed for table in tables) else 1


def _text(table: CostTable) -> str:
    """Return the table for people; all times are per query."""
    lines = [
        f"{table.checkpoint}, {table.scheme} on {table.backend}, {table.workload}, {table.threads} threads",
        f"unreduced {1e3 * table.unreduced_s:.3f} ms; a layer {1e3 * _layer(table):.3f} ms, "
        f"without heads and FFN {1e3 * table.empty_layer_s:.3f} ms",
        "",
        "     size    ms per layer        95 % interval",
    ]
    for name, costs in (("heads", table.heads), ("neurons", table.neurons)):
        for cost in costs[1:]:
            low, high, value = 1e3 * cost.low, 1e3 * cost.high, 1e3 * cost.seconds
            lines.append(f"{cost.size:>5} {name:<9} {value:>8.4f}    {low:>8.4f} to {high:>8.4f}")
    verdict = "within" if table.passed else "above"
    lines += [
        "",
        f"{len(table.checks)} random structures: median error of the predicted cost "
        f"{table.median_error or 0:.1%}, {verdict} the limit of {table.limit:.0%}",
        f"built in {table.built_in_s:.0f} s, measured in {table.measured_in_s:.0f} s",
    ]
    return "\n".join(lines)


def _layer(table: CostTable) -> float:
    return table.layer_s(table.heads[-1].size, table.neurons[-1].size)
