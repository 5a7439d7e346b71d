"""The whole pipeline on a generated data set and a small BERT that is pretrained first."""

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

LEARNING_RATES = {"full": 3e-4, "last-2": 3e-4, "frozen": 1e-3}  # a tiny model needs more than BERT
VARIANTS = ("fp32", "int8")


def demo(folder: str | Path, *, meter: str = "auto") -> tuple[ReportContents, Path, list[EffxError]]:
    """Train, export, profile and report.

    Existing encoder, checkpoints and engines in ``folder`` are reused; engines are always profiled again.

    Returns:
        The contents of the report, the path of its page, and the failures of export and profile.
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
    content, report_folder = report([results])
    return content, report_folder / "index.html", failures + more
