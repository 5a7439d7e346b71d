"""Settings of unstructured lottery tickets: masks, how they are found, and a search for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from effx.errors import UsageError
from effx.specs import variants
from effx.specs.layer_reduction import CONTRIBUTION
from effx.specs.settings import OneOf, Settings, wrong
from effx.specs.training import ALL_ROWS, Count, FinetuneSettings, Positive

OBJECTIVES = ("task", "mlm")
MASK_KINDS = ("imp", "random", "one-shot", "standard")
START_WEIGHTS = ("pretrained", "fresh", "shuffled")
MLM_ROWS = ("passages", "blocks")
MLM_PRUNE = ("after", "before")
LR_LOTTERY = 2e-5
SPARSITY_STEP = 10
"""Percent of the weights that each round of a search for lottery tickets removes."""

MaskKind = Annotated[str, OneOf("kind of mask", MASK_KINDS)]
StartWeights = Annotated[str, OneOf("initial weights", START_WEIGHTS)]
Sparsity = Annotated[int, Field(ge=SPARSITY_STEP, le=100 - SPARSITY_STEP)]
_KIND_HELP = (
    "How masks are found. imp: iterative magnitude pruning; every round trains, sets the smallest weights to "
    "zero, and resets the others to the pretrained weights. random: weights drawn at random with the seed. "
    "one-shot: the smallest pretrained weights, without training. standard: as imp, but every round goes on "
    "from the trained weights of the round before."
)
_INIT_HELP = (
    "Weights that are fine-tuned under the mask. fresh: a randomly initialised encoder of the same config; "
    "shuffled: the pretrained encoder with the matrices of its layers in another order. Both are for masks "
    "that were found on the pretrained weights, by kind imp or in a file."
)


def rewind_refusal(step: int, steps: int) -> str | None:
    """Return why rounds of ``steps`` optimizer steps cannot be rewound to ``step``; None: they can."""
    return None if step < steps else f"rewind {step}: expected fewer than the {steps} steps of a round."


class MlmSettings(Settings):
    """How masks are found by masked language modelling; what is not given is as in the fine-tuning."""

    text: str | None = None
    """File with one passage per line, for masked language modelling."""
    mlm_steps: Count | None = None
    """Optimizer steps of each round of masked language modelling. Default: `epochs` and `max_steps`
    decide."""
    mlm_batch_size: Count | None = None
    """Passages or blocks per step of masked language modelling. Default: `batch_size`."""
    mlm_lr: Positive | None = None
    """Peak learning rate of masked language modelling. Default: lr."""
    mlm_max_length: Annotated[int, Field(ge=variants.MIN_LENGTH)] | None = None
    """Maximum tokens of a passage, or tokens of every block, in masked language modelling. Default:
    `max_length`."""
    mlm_rows: Annotated[str, OneOf("form of rows", MLM_ROWS)] = "passages"
    """What masked language modelling trains on. passages: each passage alone, cut at the maximum length;
    blocks: the passages of text joined, and cut into blocks of exactly that length."""
    mlm_prune: Annotated[str, OneOf("time of pruning", MLM_PRUNE)] = "after"
    """When a round of masked language modelling prunes its 10 %. after: at its end, so that every mask was
    trained for; before: at its beginning, so that the mask of 10 % is that of the pretrained weights."""

    def changed(self) -> list[str]:
        """Return the names of the settings that are not the default."""
        defaults = MlmSettings().flat()
        return [name for name, value in self.flat().items() if value != defaults[name]]

    def rounds(self, finetune: FinetuneSettings) -> FinetuneSettings:
        """Return how the rounds train, given how tickets are fine-tuned."""
        values = {
            "max_steps": self.mlm_steps, "batch_size": self.mlm_batch_size, "lr": self.mlm_lr,
            "max_length": self.mlm_max_length,
        }  # fmt: skip
        return finetune.replace(**{name: value for name, value in values.items() if value is not None})


class MaskSearchSettings(Settings):
    """What the rounds of a search for masks train."""

    objective: Annotated[str, OneOf("objective", OBJECTIVES)] = "task"
    """Training objective of the rounds: the task, or masked language modelling (mlm). A mask found with mlm
    can be used for every task."""
    mlm: MlmSettings = MlmSettings()
    rewind: Count | None = None
    """Late rewinding, for kind imp: every round resets weights and optimizer to those after this many
    optimizer steps of the first fine-tuning, and trains the steps that remain. Default: every round starts
    from the pretrained weights."""
    mask: str | None = None
    """Fine-tune with an existing mask, e.g. masks/mlm70-s0.safetensors, instead of searching."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        changed = self.mlm.changed()
        if changed and (self.objective != "mlm" or self.mask):
            name = changed[0]
            raise wrong(f"{name} is used only with objective mlm and without a mask: set objective to mlm, "
                        f"or leave {name} out.", name, "objective")  # fmt: skip
        if self.rewind is not None and self.mask is not None:
            raise wrong("rewind is for a search: leave rewind or mask out.", "rewind", "mask")
        if self.rewind is not None and self.objective == "mlm":
            raise wrong("rewind: the first round has to fine-tune on the task: set objective to task.",
                        "rewind", "objective")  # fmt: skip
        return self


class LotterySettings(Settings):
    """One unstructured lottery ticket: a mask of the encoder's weights, and what is fine-tuned under it."""

    NOTES: ClassVar[Mapping[str, str]] = {"lr": f"Default: {LR_LOTTERY:g}.", "limit": ALL_ROWS}

    sparsity: Sparsity = 70
    """Percentage of the encoder's weights set to zero, in rounds of 10 %."""
    kind: Annotated[MaskKind, Field(description=_KIND_HELP)] = "imp"
    init: Annotated[StartWeights, Field(description=_INIT_HELP)] = "pretrained"
    search: MaskSearchSettings = MaskSearchSettings()
    finetune: FinetuneSettings = FinetuneSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        search = self.search
        if self.sparsity % SPARSITY_STEP:
            raise wrong(
                f"sparsity {self.sparsity}: expected a multiple of {SPARSITY_STEP}, the percentage that each "
                "round removes.", "sparsity",
            )  # fmt: skip
        if search.objective == "mlm" and self.finetune.layers is not None:
            raise wrong("layers: masked language modelling trains all layers: leave layers out, or "
                        "set objective to task.",
                        "layers", "objective")  # fmt: skip
        if self.finetune.drop_layers == CONTRIBUTION:
            raise wrong("drop_layers contribution: masks are found before training rows are read: use "
                        "another strategy.", "drop_layers")  # fmt: skip
        if search.mask is not None and "sparsity" in self.model_fields_set:
            raise wrong("a mask decides the sparsity: leave sparsity or mask out.", "mask", "sparsity")
        if self.kind != "imp":
            self._check_kind()
        if search.rewind is not None:
            self._check_rewind(search.rewind)
        if self.init == "shuffled" and self.finetune.layers == 1:
            raise wrong("init shuffled: one layer has no other order: use two layers or more.",
                        "init", "layers")  # fmt: skip
        return self

    def _check_kind(self) -> None:
        """Refuse what another kind of mask than imp does not have."""
        kind, search = self.kind, self.search
        if search.mask is not None:
            raise wrong(f"kind {kind}: a mask is given: leave kind or mask out.", "kind", "mask")
        if search.objective == "mlm":
            raise wrong(f"kind {kind}: objective mlm is for kind imp: set kind to imp, or objective to task.",
                        "kind", "objective")  # fmt: skip
        if self.init != "pretrained":
            raise wrong(
                f"init {self.init} needs a mask that was found on the pretrained weights: set kind to imp, "
                f"not {kind}.", "init", "kind",
            )  # fmt: skip
        if search.rewind is not None:
            raise wrong(f"rewind: kind {kind} does not rewind: set kind to imp, or leave rewind out.",
                        "rewind", "kind")  # fmt: skip

    def _check_rewind(self, step: int) -> None:
        """Refuse what cannot be rewound to a step."""
        if self.init != "pretrained":
            raise wrong(
                f"rewind resets to trained weights, and init is {self.init}: leave rewind or init out.",
                "rewind", "init",
            )  # fmt: skip
        if self.finetune.patience is not None:
            raise wrong("rewind: every round trains all steps: leave patience or rewind out.",
                        "rewind", "patience")  # fmt: skip
        steps = self.finetune.training.max_steps
        if steps is not None and (reason := rewind_refusal(step, steps)):
            raise wrong(reason, "rewind", "max_steps")

    @property
    def learning_rate(self) -> float:
        """The peak learning rate, given or default."""
        return self.finetune.training.lr or LR_LOTTERY


class LotterySearchSettings(Settings):
    """Unstructured lottery tickets, compared with the full model; ``seed`` is the first of ``seeds``."""

    NOTES: ClassVar[Mapping[str, str]] = {
        **LotterySettings.NOTES,
        "seed": "A search uses this seed and the following ones.",
        "text": "Default: the task's training texts.",
        "mlm_rows": "Blocks need `text`.",
    }

    sparsity: Annotated[tuple[Sparsity, ...], Field(min_length=1)] = (70,)
    """Percentages of the encoder's weights set to zero, multiples of 10. imp and standard give the tickets of
    all rounds up to the largest."""
    kind: Annotated[tuple[MaskKind, ...], Field(min_length=1, description=_KIND_HELP)] = ("imp",)
    init: Annotated[tuple[StartWeights, ...], Field(min_length=1, description=_INIT_HELP)] = ("pretrained",)
    seeds: Count = 1
    """Number of seeds. Whether tickets match the full model needs two or more."""
    keep: Annotated[str, OneOf("keep", ("all", "none"))] = "all"
    """Checkpoints to keep. Masks, scores and the table always remain, and the same command resumes from
    them."""
    search: MaskSearchSettings = MaskSearchSettings()
    finetune: FinetuneSettings = FinetuneSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, words in (("sparsity", self.sparsity), ("kind", self.kind), ("init", self.init)):
            if double := next((word for word in words if words.count(word) > 1), None):
                raise wrong(f"duplicate {name} {double}.", name)
        if self.search.mask is not None and "sparsity" in self.model_fields_set:
            raise wrong("a mask decides the sparsity: leave sparsity or mask out.", "mask", "sparsity")
        if "imp" not in self.kind and (others := [init for init in self.init if init != "pretrained"]):
            raise wrong(
                f"init {others[0]} needs a mask that was found on the pretrained weights: add imp to kind.",
                "init", "kind",
            )  # fmt: skip
        if self.kind != ("imp",) and "pretrained" not in self.init:
            other = next(kind for kind in self.kind if kind != "imp")
            raise wrong(f"kind {other} is for the pretrained weights: add pretrained to init.",
                        "kind", "init")  # fmt: skip
        try:
            for kind, init in self.pairs:
                for percent in self.sparsity:
                    self.ticket(kind, init, percent, self.finetune.training.seed)
        except UsageError as error:
            raise wrong(str(error), *error.settings) from error
        return self

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every kind of mask with the weights that it is applied to."""
        return [
            (kind, init) for kind in self.kind for init in self.init if kind == "imp" or init == "pretrained"
        ]

    @property
    def every_seed(self) -> range:
        """The seeds of the search."""
        first = self.finetune.training.seed
        return range(first, first + self.seeds)

    def ticket(self, kind: str, init: str, percent: int, seed: int) -> LotterySettings:
        """Return the settings of one ticket."""
        sparsity = {} if self.search.mask is not None else {"sparsity": percent}
        given = {**self.search.given(), **self.finetune.given(), "seed": seed}
        return LotterySettings.of(kind=kind, init=init, **sparsity, **given)
