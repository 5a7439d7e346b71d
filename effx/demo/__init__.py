"""The main job, end to end, on what effx carries itself."""

from __future__ import annotations

from pathlib import Path

from effx.artifacts import Checkpoint
from effx.demo import pretraining as encoder
from effx.errors import EffxError
from effx.export import export_all
from effx.profile import profile
from effx.report import ReportContents, report
from effx.specs.measurement import MeasurementPlan
from effx.specs.training import FinetuneSettings
from effx.train import finetune

LEARNING_RATES = {"full": 3e-4, "last-2": 3e-4, "frozen": 1e-3}  # a tiny model wants more than BERT
VARIANTS = ("fp32", "int8")


def demo(folder: str | Path, *, meter: str = "auto") -> tuple[ReportContents, Path, list[EffxError]]:
    """Train, export, profile and report; return the frontiers, the page and any failures.

    Pretraining, checkpoints and engines that are there already are kept; the profile is new.
    """
    folder = Path(folder)
    model = encoder.pretrain(folder / "pretrained" / encoder.NAME)
    checkpoints = folder / "checkpoints"
    for regime, lr in LEARNING_RATES.items():
        name = f"demo-{regime}"
        if not Checkpoint.find(checkpoints / name):
            finetune(
                "demo",
                model,
                out=checkpoints,
                name=name,
                settings=FinetuneSettings.of(regime=regime, epochs=3, lr=lr, max_length=64),
            )
    engines, failures = export_all([checkpoints], VARIANTS, out=folder / "engines")
    results = folder / "results"
    _, more = profile(
        [engine.folder for engine in engines], out=results, plan=MeasurementPlan.quick(), meter=meter
    )
    content, place = report([results])
    return content, place / "index.html", failures + more
