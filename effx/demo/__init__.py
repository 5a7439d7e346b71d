"""The whole pipeline on a generated data set and a small BERT that is pretrained first."""

from __future__ import annotations

from pathlib import Path

from effx import scratch

scratch.for_torch()

from effx.artifacts import Checkpoint  # noqa: E402
from effx.demo import pretraining as encoder  # noqa: E402
from effx.errors import EffxError  # noqa: E402
from effx.export import export_all  # noqa: E402
from effx.profile import profile  # noqa: E402
from effx.report import ReportContents, report  # noqa: E402
from effx.specs.measurement import MeasurementPlan  # noqa: E402
from effx.specs.training import FinetuneSettings  # noqa: E402
from effx.train import finetune  # noqa: E402

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
