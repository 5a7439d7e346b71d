"""Settings of pruning under a budget of measured cost and of ``effx optimize``, without PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, model_validator

from effx.errors import UsageError
from effx.specs import variants
from effx.specs.constraints import MAX_DROP, Confidence
from effx.specs.distillation import DistillationSettings
from effx.specs.measurement import BuiltFor
from effx.specs.quantities import PERIOD, SHARE
from effx.specs.settings import OneOf, Seed, Settings, wrong

PRUNING_OBJECTIVES = ("latency", "energy")
"""What a structure can be chosen to reduce."""


class OneShotSettings(Settings):
    """Pruning without training."""

    speedup: Annotated[float, Field(gt=1)] = 2.0
    """How many times as fast the pruned engine is to be, by the cost table; for energy: the unreduced
    engine's joules over its."""
    objective: Annotated[str, OneOf("objective", PRUNING_OBJECTIVES)] = "latency"
    """What is reduced. latency: time per query; energy: joules per query, which are in cost tables that were
    measured with a meter."""
    rows: Annotated[int, Field(ge=8)] = 1024
    """Training rows that layers are measured on (three quarters), and whole models compared on (a quarter);
    their labels are not used."""
    candidates: Annotated[int, Field(ge=1)] = 200
    """Number of structures that are compared."""
    seed: Seed = 0
    """Random seed of the rows and of the search."""


LEAST_RECOVERY_S = 20.0
"""Seconds of recovery training of one candidate at least; fewer do not repay its pruning."""
RECOVERY_SHARE, ALSO_SHARE = 0.55, 0.1
"""Of a time limit: for recovery training, and for that of exits and token schedules; the rest is for graphs,
measurements and engines."""
EXITS, TOKENS, NONE = "exits", "tokens", "none"
"""Words of ``also``."""
ALSO_PARTS = {EXITS: "exit", TOKENS: "tokens"}
"""What is trained on every model -> the part of a variant that runs it."""
_TRAINED_OR_NONE = (EXITS, TOKENS, NONE)
_WORDS = f"{EXITS}, {TOKENS}, {NONE}"
OBJECTIVES = ("latency", "throughput", "cpu_time", "energy", "memory", "size")


VariantText = Annotated[str, AfterValidator(variants.normalised)]


class OptimizeSettings(Settings):
    """What ``effx optimize`` looks for, and how long."""

    NOTES: ClassVar[Mapping[str, str]] = {
        "also": "Default: exits for single rows, where rows have one label; otherwise none.",
        "lr": "The rate decays linearly to 0.",
        "time_s": "Default: no limit.",
    }

    max_drop: Annotated[float, SHARE] = MAX_DROP
    """Maximum loss of the task's metric compared with the unreduced fp32 engine; 0.01 or 1% is one percentage
    point."""
    confidence: Confidence = 0.95
    """Confidence with which the answer loses at most that (one-sided, of the whole answer)."""
    objective: Annotated[str, OneOf("objective", OBJECTIVES)] = "latency"
    """What is minimised among the engines that are proven. latency: time per query; throughput: time of
    batches; cpu_time: processor seconds; energy: joules, which need a meter; memory; size."""
    speedups: Annotated[tuple[Annotated[float, Field(gt=1)], ...], Field(min_length=1)] = (1.5, 2.0, 3.0)
    """Speed-ups to prune to, compared with the unreduced engine of the same precision. With the objective
    energy and a meter: the unreduced engine's joules over those of the pruned one."""
    variant: VariantText = "int8"
    """Precision of the engines, as in effx export."""
    also: Annotated[tuple[VariantText, ...], Field(min_length=1)] | None = None
    """What else is tried on every model: exits and tokens (early exits or a token schedule are trained on it,
    for half of `max_drop`), and parts of variants such as threads1 or buckets8; or none."""
    choosing_rows: Annotated[int, Field(ge=0)] = 1000
    """Training rows that no pruned model is trained on (at most a tenth of all): an engine that a cheaper one
    clearly beats on them is not tested on the validation rows. 0, or fewer than 100: every engine is
    tested."""
    epochs: Annotated[float, Field(gt=0)] = 3.0
    """Passes over the training rows after pruning, with the unreduced model as teacher."""
    batch_size: Annotated[int, Field(ge=1)] = 32
    """Examples per step."""
    lr: Annotated[float, Field(gt=0)] = 1e-4
    """Peak learning rate of the recovery."""
    quantization_aware: bool = False
    """Round weights and activations during the recovery as int8 engines do. Use it where int8 engines of
    pruned models lose much more than fp32 ones."""
    distillation: DistillationSettings = DistillationSettings()
    limit: Annotated[int, Field(ge=1)] | None = None
    """Maximum number of training rows. Default: all."""
    rows: Annotated[int, Field(ge=8)] = 1024
    """Training rows on which layers and structures are compared before the recovery."""
    candidates: Annotated[int, Field(ge=1)] = 100
    """Number of structures that are compared for each speed-up."""
    time_s: Annotated[float, PERIOD] | None = None
    """Approximate time for everything, e.g. 45m: recovery trainings are shortened to fit."""
    seed: Seed = 0
    """Random seed of everything."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.speedups)) < len(self.speedups):
            raise wrong("expected different speedups.", "speedups")
        for part in self.parts:
            try:
                added = variants.parse(part)
            except UsageError as error:
                raise wrong(f"{part}: expected {_WORDS} or a part of a variant: {error}", "also") from error
            if added.reductions or added.multi or added.scheme != "fp32" or part == "fp32":
                raise wrong(f"{part}: expected {_WORDS} or a part of a variant that changes how an engine "
                            "runs, e.g. threads1 or buckets8.", "also")  # fmt: skip
        if self.quantization_aware and variants.parse(self.variant).precision != "int8":
            raise wrong(
                f"quantization_aware rounds as int8 engines do, and variant is {self.variant}: leave it "
                "out, or set variant to int8.", "quantization_aware", "variant",
            )  # fmt: skip
        if self.also is not None and NONE in self.also and len(self.also) > 1:
            raise wrong(f"{NONE} stands alone.", "also")
        return self

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of variants that are tried on every model."""
        return tuple(dict.fromkeys(part for part in self.also or () if part not in _TRAINED_OR_NONE))

    def one_shot(self, speedup: float) -> OneShotSettings:
        """Return the settings of pruning to a speed-up."""
        return OneShotSettings(
            speedup=speedup, objective="energy" if self.objective == "energy" else "latency", rows=self.rows,
            candidates=self.candidates, seed=self.seed,
        )  # fmt: skip

    @property
    def recovery_s(self) -> float | None:
        """Seconds of recovery training for each speed-up; None: no limit."""
        return None if self.time_s is None else RECOVERY_SHARE * self.time_s / len(self.speedups)

    def also_s(self, trained: int) -> float | None:
        """Return the seconds of one training of exits or of a token schedule; None: no limit.

        Args:
            trained: how many of them are trained on every model.
        """
        return None if self.time_s is None else ALSO_SHARE * self.time_s / trained / (1 + len(self.speedups))


def workload_of(settings: OptimizeSettings, built_for: BuiltFor | None) -> BuiltFor:
    """Return the workload that engines are built and measured for.

    Raises:
        UsageError: the objective is another workload's.
    """
    if settings.objective == "energy" and built_for not in (None, "single", "offline"):
        raise UsageError(
            f"objective energy: joules are measured for single rows and offline batches, not {built_for}.",
            settings=("objective", "built_for"),
        )
    if settings.objective != "throughput":
        return built_for or "single"
    if built_for == "single":
        raise UsageError(
            "throughput is of batches: leave out the workload, or use offline or BxL.", settings="built_for"
        )
    return built_for or "offline"
