"""A recipe as data: what is trained, built and measured, with every default filled in."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

DEMO_MODEL = "demo"
"""The model that effx pretrains itself; see :mod:`effx.demo.pretraining`."""


@dataclass(frozen=True)
class TaskOf:
    """A task and its rows."""

    name: str
    data: str | None = None
    """Folder with train and validation; None: the hub, or the demo corpus."""
    limit: int | None = None
    """Training rows at most."""


@dataclass(frozen=True)
class ModelOf:
    """A pretrained encoder."""

    label: str
    source: str
    """A folder, a name on the hub, or ``demo``."""
    trust_remote_code: bool = False


@dataclass(frozen=True)
class Stage:
    """One way to train: a regime, a ticket of either kind, a token schedule or early exits."""

    label: str
    settings: dict[str, Any]
    of: tuple[str, ...] = ()
    """Labels of the stages whose checkpoints it goes on from; a regime and a lottery ticket have none."""


@dataclass(frozen=True)
class VariantOf:
    """What export builds."""

    text: str
    of: tuple[str, ...] | None = None
    """Labels of the stages it is built of; None: those that have just the exits and tokens it names."""


@dataclass(frozen=True)
class BackendOf:
    """What runs the engines."""

    backend: str
    device: str | None = None


@dataclass(frozen=True)
class Budgets:
    """What a run may take. None: no limit."""

    total_s: float | None = None
    """No cell is begun after so long; those under way are finished."""
    cell_s: float | None = None
    """A cell that takes longer is stopped, and counts as failed."""
    threads: int | None = None
    """Compute threads of a cell; None: the processors that may be used, shared by ``at_once``."""
    at_once: int = 1
    """Cells at once on one machine; measurements are alone all the same."""
    memory_bytes: int | None = None
    """What Ray sets aside for a cell."""
    gpus: float = 0.0
    """GPUs, or a share of one, that Ray gives to a cell that trains or measures."""
    retries: int = 3
    """How often Ray starts a cell again whose node was lost."""


@dataclass(frozen=True)
class Recipe:
    """A whole recipe."""

    name: str
    workspace: str
    tasks: tuple[TaskOf, ...]
    models: tuple[ModelOf, ...]
    seeds: tuple[int, ...] = (0,)
    training: dict[str, Any] = field(default_factory=dict)
    """Defaults of everything that trains."""
    regimes: tuple[Stage, ...] = ()
    pruned: tuple[Stage, ...] = ()
    lottery: tuple[Stage, ...] = ()
    tokens: tuple[Stage, ...] = ()
    exits: tuple[Stage, ...] = ()
    tickets: dict[str, Any] | None = None
    variants: tuple[VariantOf, ...] = ()
    backends: tuple[BackendOf, ...] = ()
    calibration_rows: int = 128
    workloads: dict[str, Any] = field(default_factory=dict)
    """Fields of :class:`effx.specs.measurement.MeasurementPlan`, and ``meter``."""
    budgets: Budgets = field(default_factory=Budgets)

    @property
    def folder(self) -> Path:
        """The workspace."""
        return Path(self.workspace)

    def resolved(self) -> dict[str, Any]:
        """Return the recipe as a mapping that reads back as the same recipe."""

        def stages(group: tuple[Stage, ...]) -> dict[str, Any]:
            return {
                stage.label: {**({"of": list(stage.of)} if stage.of else {}), **_listed(stage.settings)}
                for stage in group
            }

        whole = {
            "name": self.name,
            "workspace": self.workspace,
            "tasks": {task.name: {"data": task.data, "limit": task.limit} for task in self.tasks},
            "models": {
                model.label: {"source": model.source, "trust_remote_code": model.trust_remote_code}
                for model in self.models
            },
            "seeds": list(self.seeds),
            "training": dict(self.training),
            "regimes": stages(self.regimes),
            "pruned": stages(self.pruned),
            "lottery": stages(self.lottery),
            "tokens": stages(self.tokens),
            "exits": stages(self.exits),
            "tickets": _listed(self.tickets) if self.tickets else None,
            "variants": [
                {"variant": variant.text, **({"of": list(variant.of)} if variant.of else {})}
                for variant in self.variants
            ],
            "backends": [asdict(backend) for backend in self.backends],
            "calibration_rows": self.calibration_rows,
            "workloads": _listed(self.workloads),
            "budgets": asdict(self.budgets),
        }
        return {key: value for key, value in whole.items() if value not in ({}, [], None)}


def _listed(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
