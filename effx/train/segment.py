"""A segment of a training run: paused after a step, and continued as if it had not been paused.

    STATE/state.json          steps and seconds so far, mean loss, whether early stopping ended the run
    STATE/checkpoint-STEPS/   weights, optimizer, schedule, random numbers, and the best weights so far

A run in segments ends with the same weights, bit for bit, as the run without pauses: its learning-rate
schedule is always that of the complete run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from effx import files, records
from effx.costs import Cost
from effx.errors import ArtifactError, one_line

_STATE = "state.json"


@dataclass(frozen=True)
class RunSegment:
    """The begin and end of a segment; by default the complete run."""

    begin: Path | None = None
    """Folder with the state that the previous segment of the run saved; None: begin at the first step."""
    until: int | None = None
    """Number of optimizer steps, counted from the first, after which the run is paused; None: never."""
    state: Path | None = None
    """Folder to save the state of a paused run in; an existing folder is replaced."""
    shared: bool = False
    """Whether other runs begin with the same state, so that its cost is not that of this run."""


@dataclass(frozen=True)
class PausedState:
    """Progress of a run up to a pause."""

    steps: int
    seconds: float
    loss: float
    """Mean over the steps."""
    finished: bool
    """Whether early stopping ended the run; its weights are the best ones."""
    cost: Cost | None = None
    """What it took so far, without evaluations; None: unknown."""
    evaluations: int = 0
    """Times that held-out rows were scored."""
    evaluation: Cost | None = None
    """What these took together; None: there were none, or it is unknown."""
    precision: str | None = None
    """What was computed in, ``bf16`` or ``fp32``; None: unknown."""

    def write(self, folder: Path) -> None:
        """Write state.json into a state's folder."""
        costs = {
            name: None if cost is None else cost.to_json()
            for name, cost in (("cost", self.cost), ("evaluation", self.evaluation))
        }
        files.write_json(folder / _STATE, {**vars(self), **costs})

    @classmethod
    def read(cls, folder: Path) -> PausedState:
        """Read state.json.

        Raises:
            ArtifactError: the file is missing or damaged.
        """
        try:
            value = records.read_json(folder / _STATE)
            cost, evaluation = (
                records.build(Cost, value[name], folder / _STATE) if value.get(name) else None
                for name in ("cost", "evaluation")
            )
            return cls(
                int(value["steps"]), float(value["seconds"]), float(value["loss"]), bool(value["finished"]),
                cost, int(value.get("evaluations", 0)), evaluation, value.get("precision"),
            )  # fmt: skip
        except (ArtifactError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"{folder}: a paused training run cannot be read ({one_line(error, None).rstrip('.')}). "
                "Delete the folder to train the run again."
            ) from error

    def checkpoint(self, folder: Path) -> Path:
        """Return the folder with the weights, optimizer and other state that training continues from."""
        return folder / f"checkpoint-{self.steps}"


class Pause(TrainerCallback):  # type: ignore[misc]
    """Saves and stops after a number of optimizer steps, or when another callback stops the run."""

    def __init__(self, until: int) -> None:
        self._until = until

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        if control.should_training_stop or state.global_step >= self._until:
            control.should_save = control.should_training_stop = True
        return control
