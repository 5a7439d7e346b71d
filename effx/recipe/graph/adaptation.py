"""The cells of a few-shot adaptation.

adapt (model, share, draw) ──┬── adaptation: table and figure
adapt                      ──┘
"""

from __future__ import annotations

from typing import Any

from effx.recipe.graph.cells import CellBuilder, data_paths
from effx.recipe.graph.chains import joined
from effx.recipe.language.recipe import ModelEntry, TaskEntry
from effx.specs.adaptation import AdaptationSettings
from effx.specs.stages import AdaptationStage, AdaptStage
from effx.specs.training import rows_share_text


def add(
    builder: CellBuilder, task: TaskEntry, models: tuple[ModelEntry, ...], settings: AdaptationSettings
) -> None:
    """Add a fine-tuning for every model, share and draw, and the table.

    Args:
        builder: collects the cells.
        task: the target.
        models: what is adapted.
        settings: shares, draws, and how to train.
    """
    cells = []
    for seed in settings.seeds:
        for share in settings.shares:
            finetune = settings.run(share, seed)
            for model in models:
                options: dict[str, Any] = {
                    "local_paths": data_paths(task, model),
                    "model": builder.digests.model(model.source),
                    "group": model.label,
                    "work": builder.amount(task, finetune, "epochs"),
                    "rows": builder.rows(task),
                }
                text = rows_share_text(share).removesuffix("%").replace(".", "_")
                cells.append(
                    builder.add(
                        "adapt", f"{joined(task.name, model.label)}-share{text}-s{seed}",
                        AdaptStage(task=task.name, model=model.label, head=model.head, finetune=finetune),
                        keep=settings.keep == "all", view="checkpoints/{name}", **options,
                    )
                )  # fmt: skip
    stage = AdaptationStage(
        task=task.name, models=tuple(model.label for model in models),
        adaptation=settings.replace(keep="none"),  # keep does not change the table
    )  # fmt: skip
    builder.add(
        "adaptation", f"adaptation-{task.name}", stage, sources=tuple(cell.id for cell in cells),
        local_paths=data_paths(task), view="*", rows=builder.rows(task),
    )  # fmt: skip
