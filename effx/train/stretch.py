"""A stretch of a training run: paused at a step, and continued as if it had never been paused.

    STATE/state.json          steps and seconds so far, mean loss, whether early stopping ended the run
    STATE/checkpoint-STEPS/   weights, optimizer, schedule, random numbers, and the best weights so far

A run in stretches ends with the weights, bit for bit, of the same run in one piece: the schedule is
that of the whole run, wherever it is paused.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from effx import files
from effx.errors import ArtifactError

_STATE = "state.json"


@dataclass(frozen=True)
class Stretch:
    """Where a stretch begins and ends; by default the whole run."""

    begin: Path | None = None
    """The state that an earlier stretch of the same run left; None: the first step."""
    until: int | None = None
    """Optimizer steps of the whole run, after which it is paused; None: it runs to its end."""
    state: Path | None = None
    """Where a stretch that is paused leaves its state; a folder that is there is replaced."""


@dataclass(frozen=True)
class State:
    """What stretches so far came to."""

    steps: int
    seconds: float
    loss: float
    """Mean over the steps."""
    finished: bool
    """Whether early stopping ended the run; its weights are the best ones."""

    def write(self, folder: Path) -> None:
        """Write state.json into a state's folder."""
        files.write_json(folder / _STATE, asdict(self))

    @classmethod
    def read(cls, folder: Path) -> State:
        """Read state.json.

        Raises:
            ArtifactError: it is not there or damaged.
        """
        try:
            value = json.loads((folder / _STATE).read_bytes())
            return cls(
                int(value["steps"]), float(value["seconds"]), float(value["loss"]), bool(value["finished"])
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ArtifactError(
                f"{folder}: a paused training run cannot be read ({error}). Delete the folder to have it "
                "trained again."
            ) from error

    def checkpoint(self, folder: Path) -> Path:
        """Return the folder of the weights and all else that training continues from."""
        return folder / f"checkpoint-{self.steps}"


class Pause(TrainerCallback):  # type: ignore[misc]
    """Saves and stops after a number of optimizer steps, or where another callback stops."""

    def __init__(self, until: int) -> None:
        self._until = until

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        if control.should_training_stop or state.global_step >= self._until:
            control.should_save = control.should_training_stop = True
        return control
