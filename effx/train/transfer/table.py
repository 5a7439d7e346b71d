"""The table of a transfer of masks and tickets between tasks, as JSON, CSV and Markdown.

A row is a source and a target: TRANSFER(S, T). It is compared with the full model of the target, and with
the mask that was found on the target itself, TRANSFER(T, T), both paired over seeds. A row *matches* if its
mean is not below that of the full model by more than one standard deviation of the full model's scores over
the seeds, n - 1 in the denominator (Chen et al. 2020, section 3.1): a convention, not a test.

The questions are answered over all targets together: for every seed, the differences are averaged over
targets and over sources, and the means are tested over seeds.

It contains no times, so that the same cells give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from effx.formatting import csv_text, markdown_table
from effx.specs.lottery import MlmSettings
from effx.specs.tasks import Task
from effx.specs.transfer import CONTROLS, FULL, OTHER_SEED, STRUCTURED, UNSTRUCTURED, TransferSettings
from effx.stats import runs
from effx.train import tables
from effx.train.transfer.result import TransferResult

_SCHEMA = 1
_EXACT = 1e-3
"""Share of the weights by which a mask may differ from its percentage."""
OTHER_TASKS, OWN = "other tasks", "own mask"
"""Masks of the other tasks, and that of the target, in the answers."""


@dataclass(frozen=True)
class Target:
    """A task that is trained."""

    task: Task
    validation_rows: int


Group = dict[int, TransferResult]
"""Seed -> result."""
Groups = dict[tuple[str, str], Group]
"""(source, target) -> results, of one family and amount."""


def build(
    model: str,
    targets: Sequence[Target],
    settings: TransferSettings,
    results: Sequence[TransferResult],
    mlm: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the table.

    Args:
        model: the pretrained model's name.
        targets: the tasks.
        settings: of the transfer.
        results: of every source, target and seed, and of the full models.
        mlm: how the control mlm was found; None: there is none.

    Returns:
        schema, model, seeds, tasks{name: {metric, metrics, validation_rows}}, settings, mlm,
        cells[family, amount, source, target, seed, steps, checkpoint, weight_remaining, metrics],
        summary[family, amount, source, target, weight_remaining, scores{metric: {mean, std, low, high, n}},
        matching, from_full, from_own], where ``matching`` is null for one seed, and ``from_full`` and
        ``from_own`` are {difference, low, high, p, p_adjusted, n, reason} of the primary metric, null where
        there is nothing to compare;
        answers[family, amount, sources, with, difference, low, high, p, p_adjusted, n, reason]: differences
        that are averaged over targets; p_adjusted is p after Holm's adjustment, over ``from_full``, over
        ``from_own`` and over the answers apart; and
        chance[family, amount, std, n]: the standard deviation of other seed minus own mask over targets and
        seeds, i.e. of the difference of two masks that differ by chance alone.
    """
    tasks = {target.task.name: target.task for target in targets}
    seeds = list(settings.every_seed)
    full = {name: _group(results, FULL, name) for name in tasks}
    summary = [_row(tasks[name], None, None, FULL, full[name], None, None) for name in tasks]
    answers: list[dict[str, Any]] = []
    chance: list[dict[str, Any]] = []
    for (family, amount), groups in _families(results).items():
        for (source, target), group in groups.items():
            own = None if source == target else groups[target, target]
            summary.append(_row(tasks[target], family, amount, source, group, full[target], own))
        answers += _answers(family, amount, groups, tasks, seeds)
        chance += _chance(family, amount, groups, tasks)
    for compared in ("from_full", "from_own"):
        tables.adjust(row[compared] for row in summary if row[compared] is not None)
    tables.adjust(answers)
    left_out = ("sparsity", "levels", "controls", "seeds", "seed", "keep", *MlmSettings.model_fields)
    return {
        "schema": _SCHEMA,
        "model": model,
        "seeds": seeds,
        "tasks": {
            target.task.name: {
                "metric": target.task.metric,
                "metrics": list(target.task.metrics),
                "validation_rows": target.validation_rows,
            }
            for target in targets
        },
        "settings": {key: value for key, value in settings.to_json().items() if key not in left_out},
        "mlm": mlm,
        "cells": [result.to_json() for result in results],
        "summary": summary,
        "answers": answers,
        "chance": chance,
    }


def _group(results: Sequence[TransferResult], source: str, target: str) -> Group:
    return {
        result.run.seed: result
        for result in results
        if (result.run.source, result.run.target) == (source, target)
    }


def _families(results: Sequence[TransferResult]) -> dict[tuple[str, str], Groups]:
    """Return (family, amount) -> the groups of results, in the order of the results."""
    families: dict[tuple[str, str], Groups] = {}
    for result in results:
        run = result.run
        if run.family is not None and run.amount is not None:
            groups = families.setdefault((run.family, run.amount), {})
            groups.setdefault((run.source, run.target), {})[run.seed] = result
    return families


def _scores(group: Group, metric: str) -> list[float]:
    """Return the scores of a group in the order of the seeds."""
    return [group[seed].metrics[metric] for seed in sorted(group)]


def _row(
    task: Task,
    family: str | None,
    amount: str | None,
    source: str,
    group: Group,
    full: Group | None,
    own: Group | None,
) -> dict[str, Any]:
    """Return a row of the summary; ``full``, ``own``: what it is compared with."""
    scores = _scores(group, task.metric)
    matching = None
    if full is not None:
        spread = runs.Spread.of(_scores(full, task.metric))
        matching = None if spread.std is None else float(np.mean(scores)) >= spread.mean - spread.std

    def compared(other: Group | None) -> dict[str, Any] | None:
        return None if other is None else tables.paired(_scores(other, task.metric), scores)

    return {
        "family": family,
        "amount": amount,
        "source": source,
        "target": task.name,
        "weight_remaining": float(np.mean([result.weight_remaining for result in group.values()])),
        "scores": {metric: asdict(runs.Spread.of(_scores(group, metric))) for metric in task.metrics},
        "matching": matching,
        "from_full": compared(full),
        "from_own": compared(own),
    }


def _answers(
    family: str, amount: str, groups: Groups, tasks: Mapping[str, Task], seeds: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """Yield the differences between kinds of sources, averaged over targets."""
    controls = [control for control in CONTROLS if any(source == control for source, _ in groups)]
    has_other_seed = any(source == OTHER_SEED for source, _ in groups)
    pairs = [(OTHER_TASKS, OWN)]
    pairs += [(OTHER_SEED, OWN), (OTHER_TASKS, OTHER_SEED)] if has_other_seed else []
    pairs += [(control, OWN) for control in controls]
    pairs += [(OTHER_TASKS, control) for control in controls]
    for sources, baseline in pairs:
        after, before = ([_mean(groups, tasks, kind, seed) for seed in seeds] for kind in (sources, baseline))
        yield {
            "family": family, "amount": amount, "sources": sources, "with": baseline,
            **tables.paired(before, after),
        }  # fmt: skip


def _chance(family: str, amount: str, groups: Groups, tasks: Mapping[str, Task]) -> Iterator[dict[str, Any]]:
    """Yield how much two masks of one task differ that were found with different seeds, if there are any."""
    differences = [
        result.metrics[task.metric] - groups[target, target][seed].metrics[task.metric]
        for target, task in tasks.items()
        for seed, result in groups.get((OTHER_SEED, target), {}).items()
    ]
    if len(differences) > 1:
        yield {"family": family, "amount": amount, "std": float(np.std(differences, ddof=1)),
               "n": len(differences)}  # fmt: skip


def _mean(groups: Groups, tasks: Mapping[str, Task], kind: str, seed: int) -> float:
    """Return the score of a kind of sources, averaged over targets, for one seed."""
    means = []
    for target, task in tasks.items():
        if kind == OTHER_TASKS:
            names = [name for name in tasks if name != target]
        else:
            names = [target if kind == OWN else kind]
        means.append(np.mean([groups[name, target][seed].metrics[task.metric] for name in names]))
    return float(np.mean(means))


def write(folder: Path, value: dict[str, Any]) -> None:
    """Write table.json, table.csv and table.md."""
    tables.write(folder, value, as_csv(value), markdown(value))


def as_csv(value: dict[str, Any]) -> str:
    """Return one line per row and metric; the comparisons are of the primary metric."""
    names = ("family", "amount", "source", "target", "weight_remaining")
    statistics = ("difference", "low", "high", "p", "p_adjusted")
    heads = [f"{compared}_{name}" for compared in ("from_full", "from_own") for name in statistics]
    rows = []
    for row in value["summary"]:
        for metric, spread in row["scores"].items():
            primary = metric == value["tasks"][row["target"]]["metric"]
            compared = [
                row[which][name] if primary and row[which] is not None else None
                for which in ("from_full", "from_own")
                for name in statistics
            ]
            rows.append(
                [*(row[name] for name in names), metric, *tables.spread(spread),
                 row["matching"] if primary else None, *compared]
            )  # fmt: skip
    return csv_text([*names, "metric", *tables.SPREAD, "seeds", "matching", *heads], rows)


def title(family: str, amount: str) -> str:
    """Return what a matrix is of, in words."""
    if family == STRUCTURED:
        return f"heads and FFNs pruned, level {amount}"
    return f"{amount} % of the weights zero"


def matrices(value: dict[str, Any]) -> Iterator[tuple[str, str, dict[tuple[str, str], dict[str, Any]]]]:
    """Yield family, amount, and (source, target) -> row of the summary."""
    groups: dict[tuple[str, str], dict[tuple[str, str], dict[str, Any]]] = {}
    for row in value["summary"]:
        if row["family"] is not None:
            of_family = groups.setdefault((row["family"], row["amount"]), {})
            of_family[row["source"], row["target"]] = row
    for (family, amount), rows in groups.items():
        yield family, amount, rows


def sources(value: dict[str, Any], rows: Mapping[tuple[str, str], Any]) -> list[str]:
    """Return the sources of a matrix: the tasks, the other seed, the controls."""
    return [
        name for name in (*value["tasks"], OTHER_SEED, *CONTROLS) if any(source == name for source, _ in rows)
    ]


def markdown(value: dict[str, Any]) -> str:
    """Return the matrices as Markdown, a row per source and a column per target, then the answers."""
    tasks, several = value["tasks"], len(value["seeds"]) > 1
    full = {row["target"]: row for row in value["summary"] if row["source"] == FULL}
    heads = [f"{name} ({facts['metric']})" for name, facts in tasks.items()]
    lines: list[str] = []
    for family, amount, rows in matrices(value):
        lines += [f"### {title(family, amount)[0].upper()}{title(family, amount)[1:]}", ""]
        body = [[FULL, *(_score(full[target], tasks) for target in tasks)]]
        for source in sources(value, rows):
            body.append([source, *(_marked(rows[source, target], source, tasks) for target in tasks)])
        lines += [markdown_table(["mask of", *heads], body), ""]
        if several:
            body = []
            for source in sources(value, rows):
                compared = [rows[source, target]["from_own"] for target in tasks]
                body.append([source, *("" if each is None else tables.difference(each) for each in compared)])
            table = markdown_table(["mask of", *tasks], body)
            lines += ["Minus the mask that was found on the target:", "", table, ""]
    return "\n".join([*lines, *remarks(value), ""])


def _score(row: Mapping[str, Any], tasks: Mapping[str, Any]) -> str:
    return tables.mean_and_std(row["scores"][tasks[row["target"]]["metric"]])


def _marked(row: Mapping[str, Any], source: str, tasks: Mapping[str, Any]) -> str:
    """Return a score; in brackets if the mask is the target's own, with = if it matches the full model.

    A mask of another share of weights than its matrix is headed with is followed by what it leaves.
    """
    text = _score(row, tasks) + (" =" if row["matching"] else "")
    if _is_inexact(row):
        text += f" ({row['weight_remaining']:.1%} remain)"
    return f"({text})" if source == row["target"] else text


def _is_inexact(row: Mapping[str, Any]) -> bool:
    """Whether a mask leaves another share of the weights than its percentage says."""
    if row["family"] != UNSTRUCTURED:
        return False
    return bool(abs(row["weight_remaining"] - (1 - int(row["amount"]) / 100)) > _EXACT)


def remarks(value: dict[str, Any]) -> list[str]:
    """Return the answers, one per line, as Markdown."""
    seeds = len(value["seeds"])
    if seeds == 1:
        return ["One seed: nothing can be tested. Use two or more seeds; the table then has the masks of "
                "another seed, too."]  # fmt: skip
    lines = [
        f"Mean ± standard deviation over {seeds} seeds, on all validation rows. In brackets: the mask was "
        "found on the task itself. =: it matches, i.e. its mean is not below that of the full model by more "
        "than one standard deviation of the full model over the seeds, a convention and not a test. "
        "Differences are paired over seeds, with the 95 % interval of Student's t and p-values after Holm's "
        "adjustment over the differences from own masks, and over the averages below.",
        "",
        "Averaged over tasks:",
        "",
    ]
    for answer in value["answers"]:
        what = title(answer["family"], answer["amount"])
        compared = f"{answer['sources']} minus {answer['with']}"
        lines.append(f"- {what}, {compared}: {tables.difference(answer)}.")
    for each in value["chance"]:
        lines.append(
            f"- {title(each['family'], each['amount'])}: two masks of one task, found with different "
            f"seeds, differ by {each['std']:.4f} (standard deviation of {each['n']} differences)."
        )
    if any(map(_is_inexact, value["summary"])):
        lines += ["", "Masks of models without a pooler leave a pooler's weights alone, so that fewer "
                  "weights are zero where the target has one."]  # fmt: skip
    return lines
