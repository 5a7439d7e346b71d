"""``effx cost-table``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from effx.cli import options
from effx.specs import measurement
from effx.specs.backends import BUILDABLE
from effx.specs.data import DataSource

if TYPE_CHECKING:
    from effx.optimize.cost_table import CostTable
    from effx.optimize.layer_costs import Fitted, LayerCosts


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
    help="Measure one head and every third number of heads, and about half as many numbers of neurons; costs "
    "between them are interpolated. This takes about half the time.",
)  # fmt: skip
@options.table_meter
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
    meter: str,
    seed: int,
    out: Path,
    as_json: bool,
) -> int:
    """Measure what attention and FFNs of every size cost on this machine.

    CHECKPOINT is an unreduced fine-tuned model. Small graphs of its first layers, with all numbers of heads
    and a series of numbers of FFN neurons, are built and timed in turns. The cost of any structure is
    predicted from them: how they add up is fitted to random structures, which are measured in the same way.
    How good that is shows in their predictions, each by a fit to the others. Nothing is trained. With --meter
    each graph also answers queries for three windows of 10 s, and the table has joules per query, idle power
    included; this takes about half a minute for each graph. Exit code 1: the median error of the predicted
    times or joules is above 10 % (single rows) or 5 % (batches), so that they do not add up here; or a meter
    was named and gave no energy.

    \b
    effx cost-table checkpoints/sst2-minilm-full-s0 --variant int8
    effx cost-table checkpoints/sst2-minilm-full-s0 --backend openvino --for single --for 32x128
    effx cost-table checkpoints/sst2-minilm-full-s0 --device cuda --meter nvml
    """  # fmt: skip
    from effx import files
    from effx.optimize import measure_costs

    files.check_writable(out)
    tables = measure_costs.measure(
        checkpoint, variant=variant, backend=backend, device=device, workloads=workloads,
        data_folder=data_folder, threads=threads, rounds=rounds, checks=checks, seed=seed, coarse=coarse,
        meter=meter,
    )  # fmt: skip
    texts = []
    for table in tables:
        suffix = f".{table.device}" if table.device else ""
        path = out / f"{table.checkpoint}.{table.variant}.{backend}{suffix}.{table.workload}.json"
        table.write(path)
        texts.append(f"{_text(table)}\n{path}")
    printed = json.dumps([table.to_json() for table in tables], indent=1) if as_json else "\n\n".join(texts)
    click.echo(printed)
    return 0 if all(_passed(table, named=meter not in ("none", "auto")) for table in tables) else 1


def _passed(table: CostTable, *, named: bool) -> bool:
    """Return whether times add up, and joules where there are any or a meter was named."""
    needs_energy = named or table.energy is not None
    return table.passed and (table.passed_for("energy") or not needs_energy)


_IDLE = {False: "idle power included", True: "of processor time, without idle power"}
"""Whether the energy is of a model -> what is in it."""


def _text(table: CostTable) -> str:
    """Return the table for people; all costs are per query."""
    lines = [
        f"{table.checkpoint}, {table.scheme} on {table.backend}, {table.workload}, {table.threads} threads",
        *_costs(table.seconds, table.fitted, "ms", (table.heads, table.neurons), "seconds"),
        "",
        _checked(table, "latency", len(table.checks)),
        f"built in {table.built_in_s:.0f} s, measured in {table.measured_in_s:.0f} s",
    ]
    if table.at_rest is False:
        lines.append(
            "threads of a graph still computed when the next one's turn began: costs may be too high"
        )
    if table.energy is not None and table.joules is not None:
        energy = table.energy
        lines += [
            "",
            f"energy by {energy.meter} ({energy.source}), {_IDLE[energy.source == 'model']}",
            *_costs(table.joules, energy.fitted, "mJ", (energy.heads, energy.neurons), "joules"),
            "",
            _checked(table, "energy", len(energy.checks)),
            f"{energy.windows} windows of {energy.window_s:g} s of each graph, measured in "
            f"{energy.measured_in_s:.0f} s",
        ]
    elif table.no_energy is not None:
        lines += ["", f"no energy: {table.no_energy}"]
    return "\n".join(lines)


def _costs(
    costs: LayerCosts, fitted: Fitted | None, unit: str, parts: tuple[Any, Any], field: str
) -> list[str]:
    """Return the lines of times in ms, or of energies in mJ."""
    lines = [
        f"unreduced {1e3 * costs.unreduced:.3f} {unit}; a layer {1e3 * costs.full_layer:.3f} {unit}, "
        f"without heads and FFN {1e3 * costs.empty_layer:.3f} {unit}; outside of layers "
        f"{1e3 * costs.outside:.3f} {unit}",
        *(
            [
                f"in whole encoders, heads cost {fitted.heads_factor:.2f} times, and neurons "
                f"{fitted.neurons_factor:.2f} times what is listed here"
            ]
            if fitted
            else []
        ),
        "",
        f"     size    {unit} per layer        95 % interval",
    ]
    for name, sizes in zip(("heads", "neurons"), parts, strict=True):
        for each in sizes[1:]:
            low, high, value = 1e3 * each.low, 1e3 * each.high, 1e3 * getattr(each, field)
            lines.append(f"{each.size:>5} {name:<9} {value:>8.4f}    {low:>8.4f} to {high:>8.4f}")
    return lines


def _checked(table: CostTable, objective: str, count: int) -> str:
    verdict = "within" if table.passed_for(objective) else "above"
    return (
        f"{count} random structures: median error of the predicted {objective} "
        f"{table.error_of(objective) or 0:.1%}, {verdict} the limit of {table.limit:.0%}"
    )
