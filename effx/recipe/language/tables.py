"""What each section of a recipe takes: key -> rule.

The tables repeat the names of the settings that ``effx train``, ``effx export`` and ``effx profile`` take,
because those live beside PyTorch and a recipe is read without it; a test holds the two together.
"""

from __future__ import annotations

import re

from effx.errors import UsageError, nearest
from effx.profile.meters import METERS
from effx.recipe.language.rules import Rule, choice, each, number, parsed, text, whole
from effx.specs import exit_rules, variants
from effx.specs.levels import Level, parse_levels
from effx.specs.measurement import parse_shape
from effx.specs.training import TICKET_KINDS
from effx.specs.workloads import SCENARIOS


def regime(value: str) -> None:
    """Raise :class:`UsageError` for what is no regime; see :func:`effx.train.finetune.parse_regime`."""
    if value not in ("full", "frozen") and not re.fullmatch(r"last-[1-9]\d*", value):
        hint = nearest(value, ("full", "frozen", "last-2"))
        raise UsageError(f"unknown regime '{value}'.{hint} Known: full, frozen, last-K (as last-2).")


def _meter(value: str) -> None:
    name = value.partition(":")[0]
    if name not in (*METERS, "auto", "none"):
        hint = nearest(name, (*METERS, "auto", "none"))
        raise UsageError(f"unknown meter '{name}'.{hint} Known: auto, {', '.join(METERS)}, none.")


TOKEN_RULE = "share"
EXIT_RULE = "entropy"
"""What stands for ``rule`` where the recipe names none."""
TRAINING: dict[str, Rule] = {
    "epochs": number(above=True),
    "batch_size": whole(1),
    "lr": number(above=True),
    "weight_decay": number(),
    "warmup": number(0, 1),
    "precision": choice(("auto", "fp32", "bf16"), "precision"),
    "max_steps": whole(1),
    "optimizer": choice(("adamw", "adamax"), "optimizer"),
}
REGIME: dict[str, Rule] = {
    "regime": parsed(regime),
    "layers": whole(1),
    "max_length": whole(variants.MIN_LENGTH),
    "patience": whole(1),
    "head_dropout": number(0, 1),
    **TRAINING,
}
_SCORED: dict[str, Rule] = {
    "importance": choice(("taylor", "fisher", "published", "magnitude", "random"), "importance"),
    "granularity": choice(("ffns", "neurons"), "granularity"),
    "min_heads": whole(),
}
TICKETS: dict[str, Rule] = {
    "levels": each(parsed(lambda value: parse_levels(value))),
    "kinds": each(choice(TICKET_KINDS, "kind of ticket"), distinct=True),
    "seeds": whole(1),
    **_SCORED,
    "search": choice(("grid", "halving"), "search"),
    "selection": number(0, 1, above=True, below=True),
    "preset": choice(("super-tickets",), "preset"),
    **REGIME,
}
PRUNED: dict[str, Rule] = {
    "of": each(text),
    "level": parsed(Level.parse),
    "kind": choice(TICKET_KINDS, "kind of ticket"),
    **_SCORED,
    **{key: rule for key, rule in REGIME.items() if key not in ("layers", "head_dropout")},
}
LOTTERY: dict[str, Rule] = {
    "sparsity": choice(range(10, 100, 10), "sparsity"),
    "objective": choice(("task", "mlm"), "objective"),
    **REGIME,
}
TOKENS: dict[str, Rule] = {
    "of": each(text),
    "rule": choice(("share", "threshold"), "token rule"),
    "schedule": each(number(0, 1), single=False),
    "keep": number(0, 1, above=True),
    "penalty": number(),
    "soft_epochs": number(above=True),
    **TRAINING,
    "epochs": number(),
}
EXITS: dict[str, Rule] = {
    "of": each(text),
    "mode": choice(("two-stage", "joint"), "mode"),
    "after": each(whole(1)),
    "pooling": choice(("mean", "cls"), "pooling"),
    "rule": choice(exit_rules.RULES, "exit rule"),
    "depth": number(above=True),
    "max_drop": number(),
    **TRAINING,
}
WORKLOADS: dict[str, Rule] = {
    "scenarios": each(choice((*SCENARIOS, "all"), "scenario")),
    "rate_per_s": number(above=True),
    "grid": each(parsed(lambda value: [parse_shape(part) for part in value.split(",")]), least=0),
    "rounds": whole(3),
    "block_queries": whole(1),
    "grid_rounds": whole(1),
    "grid_queries": whole(1),
    "offline_batches": whole(1),
    "windows": whole(1),
    "window_s": number(above=True),
    "resident": whole(1),
    "threads": whole(1),
    "limit": whole(1),
    "seed": whole(),
    "meter": parsed(_meter),
}
BUDGETS: dict[str, Rule] = {
    "total_s": number(above=True),
    "cell_s": number(above=True),
    "threads": whole(1),
    "at_once": whole(1),
    "memory_bytes": whole(1),
    "gpus": number(),
    "retries": whole(),
}
KEYS = ("name", "workspace", "tasks", "models", "seeds", "limit", "training", "regimes", "pruned", "lottery",
        "tokens", "exits", "tickets", "variants", "backends", "calibration_rows", "workloads",
        "budgets")  # fmt: skip
