"""How each kind of cell is done: one function each, in the cell's own process.

A function takes the cell as :mod:`effx.recipe.execute.work` got it and the folder in which to make
``name``; it returns the artefact's digest, if it has one, and a line about what came out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from effx.errors import EffxError
from effx.recipe.graph import tickets

Made = tuple[str | None, str]


class RefusedError(EffxError):
    """The combination cannot be built; nothing is wrong with the rest."""


def pretrain(spec: dict[str, Any], out: Path) -> Made:
    """Pretrain the demo's encoder."""
    from effx.demo import pretraining

    pretraining.pretrain(out / spec["name"])
    return None, ""


def finetune(spec: dict[str, Any], out: Path) -> Made:
    """Fine-tune a pretrained encoder."""
    from effx.specs.training import FinetuneSettings
    from effx.train import finetune as run

    settings, places = spec["settings"], spec["places"]
    pretrained = next(iter(_read(spec)), None)
    checkpoint = run(
        settings["task"],
        pretrained or places["model"],
        out=out,
        name=spec["name"],
        data_folder=places["data"],
        settings=FinetuneSettings.of(**settings["training"]),
        trust_remote_code=settings["trust_remote_code"],
    )
    metrics = checkpoint.manifest["metrics"]
    return checkpoint.digest, _scores(checkpoint.task.metrics, metrics)


def prune(spec: dict[str, Any], out: Path) -> Made:
    """Draw a ticket of a checkpoint."""
    from effx.specs.training import TicketSettings
    from effx.train.tickets import draw

    settings, places = spec["settings"], spec["places"]
    parent, *pretrained = _read(spec)
    checkpoint = draw.draw(
        parent,
        pretrained[0] if pretrained else places["model"],
        out=out,
        name=spec["name"],
        data_folder=places["data"],
        settings=TicketSettings.of(**settings["training"]),
        trust_remote_code=settings["trust_remote_code"],
    )
    manifest = checkpoint.manifest
    scores = _scores(checkpoint.task.metrics, manifest["metrics"])
    return checkpoint.digest, f"{scores}, {manifest['weight_remaining']:.0%} of the weights"


def lottery(spec: dict[str, Any], out: Path) -> Made:
    """Find an unstructured lottery ticket; of its rounds the last checkpoint stays."""
    from effx.artifacts import Checkpoint
    from effx.specs.training import LotterySettings
    from effx.train import lottery as module

    settings, places = spec["settings"], spec["places"]
    pretrained = next(iter(_read(spec)), None)
    with tempfile.TemporaryDirectory(dir=out) as rounds:
        made = module.run(
            settings["task"],
            pretrained or places["model"],
            out=rounds,
            data_folder=places["data"],
            settings=LotterySettings.of(**settings["training"]),
        )
        made[-1].folder.rename(out / spec["name"])
    checkpoint = Checkpoint.open(out / spec["name"])
    scores = _scores(checkpoint.task.metrics, checkpoint.manifest["metrics"])
    return checkpoint.digest, f"{scores}, {checkpoint.manifest['sparsity']['share']:.0%} zeros"


def tokens(spec: dict[str, Any], out: Path) -> Made:
    """Give a checkpoint a token schedule."""
    from effx.specs.training import TokenPruningSettings
    from effx.train import tokens as module

    return _go_on(spec, out, module, "tokens", TokenPruningSettings.of(**spec["settings"]["training"]))


def exits(spec: dict[str, Any], out: Path) -> Made:
    """Give a checkpoint early exits."""
    from effx.specs.training import EarlyExitSettings
    from effx.train import exits as module

    return _go_on(spec, out, module, "exits", EarlyExitSettings.of(**spec["settings"]["training"]))


def _go_on(spec: dict[str, Any], out: Path, module: Any, entry: str, settings: Any) -> Made:
    checkpoint = module.train(
        _read(spec)[0],
        out=out,
        name=spec["name"],
        data_folder=spec["places"]["data"],
        settings=settings,
    )
    seen = checkpoint.manifest[entry]["validation"]
    note = _scores(checkpoint.task.metrics, seen)
    if "mean_depth" in seen:
        note += f", {seen['mean_depth']:.2f} of {seen['layers']} layers"
    if "kept" in seen:
        note += f", {sum(seen['kept']) / len(seen['kept']):.0%} of the tokens"
    return checkpoint.digest, note


def export(spec: dict[str, Any], out: Path) -> Made:
    """Build one engine."""
    from effx.export import export as run
    from effx.export.build import refusal
    from effx.specs import backends, variants

    settings = spec["settings"]
    device = backends.get(settings["backend"]).device(settings["device"])
    reason = refusal(variants.parse(settings["variant"]), settings["backend"], device)
    if reason:
        raise RefusedError(f"{spec['name']}: {reason}.")
    engine = run(
        _read(spec)[0],
        settings["variant"],
        settings["backend"],
        out,
        device=device,
        data_folder=spec["places"]["data"],
        calibration_rows=settings["calibration_rows"],
    )
    if engine.folder.name != spec["name"]:  # the first device is not in the engine's name
        engine.folder.rename(out / spec["name"])
    parity = engine.manifest["parity"]
    return engine.digest, f"{engine.manifest['scheme']}, labels agree on {parity['label_agreement']:.1%}"


def profile(spec: dict[str, Any], out: Path) -> Made:
    """Measure engines side by side."""
    from effx.profile import Plan
    from effx.profile import profile as run
    from effx.profile.plan import SCENARIOS, parse_grid

    settings = dict(spec["settings"]["plan"])
    wanted = settings.pop("scenarios", ())
    if "grid" in settings:
        settings["grid"] = tuple(pair for part in settings["grid"] for pair in parse_grid(part))
    scenarios = SCENARIOS if "all" in wanted else tuple(dict.fromkeys(("single-stream", *wanted)))
    runs, failures = run(
        _read(spec),
        out=out / spec["name"],
        plan=Plan(scenarios=scenarios, **settings),
        meter=spec["settings"]["meter"],
        data_folder=spec["places"]["data"],
    )
    if not runs:
        raise failures[0]
    return None, f"{len(runs)} engines" + (f", {len(failures)} failed" if failures else "")


def report(spec: dict[str, Any], out: Path) -> Made:
    """Draw the frontiers."""
    from effx.report import report as run

    content, _ = run(_read(spec), out / spec["name"])
    frontier = sum(point.non_dominated for each in content.frontiers for point in each.points)
    return None, f"{frontier} points on {len(content.frontiers)} frontiers"


KINDS: dict[str, Callable[[dict[str, Any], Path], Made]] = {
    "pretrain": pretrain,
    "finetune": finetune,
    "prune": prune,
    "lottery": lottery,
    "tokens": tokens,
    "exits": exits,
    "tickets-full": tickets.full,
    "ticket": tickets.ticket,
    "tickets": tickets.table,
    "export": export,
    "profile": profile,
    "report": report,
}


def _read(spec: dict[str, Any]) -> list[Path]:
    """Return the folders that the cell reads."""
    return [Path(folder) for folder in spec["read"]]


def _scores(metrics: Sequence[str], values: dict[str, Any]) -> str:
    return ", ".join(f"{metric} {values[metric]:.4f}" for metric in metrics)
