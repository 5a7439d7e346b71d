"""Settings: what they refuse, and that every choice has code."""

from __future__ import annotations

from typing import Any

import pytest

from effx.errors import UsageError
from effx.specs import tickets, training
from effx.specs.exits import EarlyExitSettings
from effx.specs.levels import Level
from effx.specs.lottery import LotterySearchSettings, LotterySettings, MlmSettings
from effx.specs.presets import MASK_PRESETS, PRESETS, preset, search_values, transfer_values
from effx.specs.settings import Settings, leaves
from effx.specs.tickets import TicketSearchSettings, TicketSettings
from effx.specs.tokens import TokenPruningSettings
from effx.specs.training import FinetuneSettings, TrainingSettings
from effx.specs.transfer import TransferSettings

EVERY = (FinetuneSettings, TicketSettings, TicketSearchSettings, LotterySettings, LotterySearchSettings,
         TokenPruningSettings, EarlyExitSettings, TransferSettings)  # fmt: skip


@pytest.mark.parametrize("kind", EVERY)
def test_names_are_unique_and_have_help(kind: type[Settings]) -> None:
    names = [leaf.name for leaf in leaves(kind)]
    assert len(names) == len(set(names))
    assert all(leaf.field.description for leaf in leaves(kind))
    assert set(kind.NOTES) <= set(names)


def test_flat_values_reach_the_inner_settings() -> None:
    settings = FinetuneSettings.of(regime="last-2", lr="1e-3", batch_size=8)
    assert settings == FinetuneSettings(regime="last-2", training=TrainingSettings(lr=1e-3, batch_size=8))
    assert settings.given() == {"regime": "last-2", "lr": 1e-3, "batch_size": 8}
    assert settings.flat()["epochs"] == 3.0
    assert settings.replace(lr=2.0, epochs=1).given() == {
        "regime": "last-2", "lr": 2.0, "batch_size": 8, "epochs": 1.0,
    }  # fmt: skip


def test_json_values_read_as_the_same_settings() -> None:
    search = TicketSearchSettings.of(levels="10,...,40", kinds="winning", lr=1e-3, min_heads=2)
    assert search.to_json()["levels"] == ["10", "20", "30", "40"]
    assert TicketSearchSettings.of(**search.to_json()) == search
    ticket = search.ticket(Level(20, 10), "random", seed=3)
    assert TicketSettings.of(**ticket.to_json()) == ticket
    assert (ticket.level.text, ticket.kind, ticket.pruning.min_heads) == ("20/10", "random", 2)
    assert (ticket.finetune.training.seed, ticket.finetune.training.lr) == (3, 1e-3)


@pytest.mark.parametrize(
    ("kind", "values", "message", "names"),
    [
        (FinetuneSettings, {"epochs": 0}, "epochs: expected a number > 0, got 0", ("epochs",)),
        (FinetuneSettings, {"epochs": True}, "epochs: expected a number > 0, got True", ("epochs",)),
        (FinetuneSettings, {"lr": float("nan")}, "lr: expected a number > 0, got nan", ("lr",)),
        (FinetuneSettings, {"batch_size": 1.5}, "expected an integer >= 1, got 1.5", ("batch_size",)),
        (FinetuneSettings, {"max_length": 3}, "expected an integer >= 4, got 3", ("max_length",)),
        (FinetuneSettings, {"batchsize": 8}, "Did you mean 'batch_size'", ("batchsize",)),
        (FinetuneSettings, {"optimizer": "adam"}, "unknown optimizer 'adam'.*'adamw'", ("optimizer",)),
        (FinetuneSettings, {"regime": "Full"}, "Known: full, frozen, last-K", ("regime",)),
        (FinetuneSettings, {"lr": 0, "epochs": 0}, "lr: .* epochs: |epochs: .* lr: ", ("epochs", "lr")),
        (TicketSettings, {}, "level: missing: expected a level, e.g. 40 or 20/10", ("level",)),
        (TicketSettings, {"level": "many"}, "expected a percentage, e.g. 40", ("level",)),
        (TicketSearchSettings, {"kinds": ("winnning",)}, "Did you mean 'winning'", ("kinds",)),
        (TicketSearchSettings, {"kinds": ()}, "kinds: expected at least one entry", ("kinds",)),
        (TicketSearchSettings, {"kinds": ("losing", "losing")}, "duplicate kind losing", ("kinds",)),
        (TicketSearchSettings, {"levels": (20, 20)}, "duplicate level 20", ("levels",)),
        (TicketSearchSettings, {"levels": "80,...,10"}, "levels must rise", ("levels",)),
        (TicketSearchSettings, {"importance": "taylr"}, "Did you mean 'taylor'", ("importance",)),
        (TicketSearchSettings, {"search": "halfing"}, "Did you mean 'halving'", ("search",)),
        (TicketSearchSettings, {"granularity": "heads"}, "unknown granularity 'heads'", ("granularity",)),
        (TicketSearchSettings, {"keep": "some"}, "Known: all, winning, none", ("keep",)),
        (TicketSearchSettings, {"selection": 1.0}, "expected a number > 0 and < 1, got 1.0", ("selection",)),
        (TicketSearchSettings, {"search": "halving", "kinds": "losing"}, "add winning", ("kinds", "search")),
        (LotterySettings, {"sparsity": 75}, "sparsity 75: expected a multiple of 10", ("sparsity",)),
        (LotterySettings, {"sparsity": 100}, "expected an integer >= 10 and <= 90, got 100", ("sparsity",)),
        (LotterySettings, {"objective": "mlmm"}, "Did you mean 'mlm'", ("objective",)),
        (LotterySettings, {"text": "x"}, "used only with objective mlm", ("text", "objective")),
        (
            LotterySettings,
            {"mlm_steps": 9},
            "set objective to mlm, or leave mlm_steps out",
            ("mlm_steps", "objective"),
        ),
        (
            LotterySettings,
            {"objective": "mlm", "mask": "m", "mlm_lr": 1e-3},
            "without a mask",
            ("mlm_lr", "objective"),
        ),
        (LotterySettings, {"objective": "mlm", "mlm_rows": "block"}, "Did you mean 'blocks'", ("mlm_rows",)),
        (LotterySettings, {"objective": "mlm", "mlm_prune": "first"}, "Known: after, before", ("mlm_prune",)),
        (LotterySettings, {"objective": "mlm", "mlm_max_length": 3}, "an integer >= 4", ("mlm_max_length",)),
        (
            LotterySearchSettings,
            {"mlm_prune": "before"},
            "only with objective mlm",
            ("mlm_prune", "objective"),
        ),
        (TransferSettings, {"mlm_steps": 9}, "add mlm to controls", ("mlm_steps", "controls")),
        (TransferSettings, {"controls": "mlm", "mlm_steps": 9}, "give both", ("controls", "text")),
        (LotterySettings, {"objective": "mlm", "layers": 2}, "trains all layers", ("layers", "objective")),
        (FinetuneSettings, {"drop_layers": "symmetric"}, "no effect without", ("drop_layers", "layers")),
        (FinetuneSettings, {"drop_layers": "top"}, "no effect without layers", ("drop_layers", "layers")),
        (FinetuneSettings, {"layers": 2, "drop_layers": "symetric"}, "Did you mean 'symm", ("drop_layers",)),
        (
            LotterySettings,
            {"objective": "mlm", "layers": 2, "drop_layers": "contribution"},
            "trains all layers",
            ("layers", "objective"),
        ),
        (LotterySettings, {"mask": "m", "sparsity": 20}, "a mask decides", ("mask", "sparsity")),
        (LotterySettings, {"kind": "omp"}, "unknown kind of mask 'omp'", ("kind",)),
        (LotterySettings, {"init": "random"}, "unknown initial weights 'random'", ("init",)),
        (LotterySettings, {"kind": "standard", "init": "fresh"}, "init fresh needs .*imp", ("init", "kind")),
        (LotterySettings, {"kind": "random", "init": "shuffled"}, "not random", ("init", "kind")),
        (LotterySettings, {"kind": "one-shot", "rewind": 9}, "does not rewind", ("rewind", "kind")),
        (LotterySettings, {"kind": "standard", "rewind": 9}, "does not rewind", ("rewind", "kind")),
        (LotterySettings, {"kind": "random", "objective": "mlm"}, "is for kind imp", ("kind", "objective")),
        (LotterySettings, {"kind": "one-shot", "mask": "m"}, "a mask is given", ("kind", "mask")),
        (LotterySettings, {"rewind": 0}, "expected an integer >= 1, got 0", ("rewind",)),
        (LotterySettings, {"rewind": 9, "mask": "m"}, "leave rewind or mask out", ("rewind", "mask")),
        (LotterySettings, {"rewind": 9, "objective": "mlm"}, "on the task", ("rewind", "objective")),
        (LotterySettings, {"rewind": 9, "init": "fresh"}, "and init is fresh", ("rewind", "init")),
        (LotterySettings, {"rewind": 9, "patience": 2}, "trains all steps", ("rewind", "patience")),
        (LotterySettings, {"rewind": 9, "max_steps": 9}, "fewer than the 9 steps", ("rewind", "max_steps")),
        (LotterySettings, {"init": "shuffled", "layers": 1}, "no other order", ("init", "layers")),
        (LotterySearchSettings, {"sparsity": (30, 75)}, "sparsity 75: expected a multiple", ("sparsity",)),
        (LotterySearchSettings, {"sparsity": (30, 30)}, "duplicate sparsity 30", ("sparsity",)),
        (LotterySearchSettings, {"kind": ("imp", "imp")}, "duplicate kind imp", ("kind",)),
        (
            LotterySearchSettings,
            {"kind": "random", "init": ("pretrained", "fresh")},
            "add imp to kind",
            ("kind", "init"),
        ),
        (
            LotterySearchSettings,
            {"kind": ("imp", "standard"), "init": "fresh"},
            "kind standard is for",
            ("kind", "init"),
        ),
        (
            LotterySearchSettings,
            {"kind": ("imp", "one-shot"), "rewind": 9},
            "kind one-shot does not rewind",
            ("kind", "rewind"),
        ),
        (
            LotterySearchSettings,
            {"kind": ("imp", "random"), "objective": "mlm"},
            "is for kind imp",
            ("kind", "objective"),
        ),
        (LotterySearchSettings, {"mask": "m", "sparsity": 20}, "a mask decides", ("mask", "sparsity")),
        (TokenPruningSettings, {"rule": "topk"}, "unknown token rule 'topk'", ("rule",)),
        (TokenPruningSettings, {"keep": 1.5}, "expected a number > 0 and <= 1, got 1.5", ("keep",)),
        (TokenPruningSettings, {"schedule": (1, 1), "keep": 0.5}, "exclude each other", ("schedule", "keep")),
        (TokenPruningSettings, {"schedule": (0.5, 0.6)}, "must not rise", ("schedule",)),
        (TokenPruningSettings, {"schedule": (1, 0)}, "between 0.001 and 1", ("schedule",)),
        (EarlyExitSettings, {"mode": "both"}, "unknown mode 'both'", ("mode",)),
        (EarlyExitSettings, {"rule": "confidence"}, "unknown exit rule 'confidence'", ("rule",)),
        (EarlyExitSettings, {"pooling": "max"}, "unknown pooling 'max'", ("pooling",)),
        (EarlyExitSettings, {"after": (0,)}, "expected a list of integers >= 1, got 0", ("after",)),
        (EarlyExitSettings, {"depth": 2, "max_drop": 0.1}, "exclude each other", ("depth", "max_drop")),
    ],
)
def test_wrong_settings_are_one_line_that_names_them(
    kind: type[Settings], values: dict[str, Any], message: str, names: tuple[str, ...]
) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        kind.of(**values)
    assert "\n" not in str(raised.value)
    assert set(raised.value.settings) == set(names)


def test_constructors_refuse_as_flat_values_do() -> None:
    with pytest.raises(UsageError, match="expected an integer >= 1, got 0"):
        TrainingSettings(batch_size=0)


def test_thresholds_may_rise_from_layer_to_layer() -> None:
    assert TokenPruningSettings(rule="threshold", schedule=(0.0, 0.1)).schedule == (0.0, 0.1)


@pytest.mark.parametrize(
    ("settings", "rate"),
    [
        (FinetuneSettings(), 5e-5),
        (FinetuneSettings(regime="frozen"), 1e-3),
        (FinetuneSettings.of(regime="frozen", lr=0.1), 0.1),
        (LotterySettings(), 2e-5),
        (TokenPruningSettings(), 5e-5),
        (EarlyExitSettings(), 1e-3),
        (EarlyExitSettings(mode="joint"), 5e-5),
    ],
)
def test_the_default_learning_rate_is_that_of_what_is_trained(settings: Any, rate: float) -> None:
    assert settings.learning_rate == rate


def test_presets_follow_the_paper() -> None:
    assert set(PRESETS) == {"super-tickets"}
    assert preset("super-tickets", "rte").head_dropout == 0.1
    assert preset("super-tickets", "mnli").head_dropout == 0.3
    assert preset("super-tickets", "mnli").training.optimizer == "adamax"
    with pytest.raises(UsageError, match="unknown preset 'tickets'"):
        preset("tickets", "rte")


def test_the_preset_of_the_universal_mask_follows_the_published_code() -> None:
    assert set(MASK_PRESETS) == {"universal"}
    values = search_values("universal", {"text": "t", "mlm_steps": 500, "seeds": 2, "epochs": 1.0})
    settings = LotterySearchSettings.of(**values)
    rounds = settings.search.mlm.rounds(settings.finetune)
    assert (settings.search.objective, settings.search.mlm.mlm_rows, settings.search.mlm.mlm_prune) == (
        "mlm", "blocks", "before"
    )  # fmt: skip
    assert (rounds.max_length, rounds.training.batch_size, rounds.training.lr) == (512, 16, 5e-5)
    assert rounds.training.max_steps == 500  # options prevail
    ticket, training = settings.ticket("imp", "pretrained", 70, 1).finetune, settings.finetune.training
    assert (ticket.epochs, ticket.max_length, ticket.training.max_steps) == (1.0, None, None)
    assert (training.lr, training.batch_size, training.warmup, training.weight_decay) == (2e-5, 32, 0, 0)
    assert settings.sparsity == (70,) and settings.seeds == 2
    every = LotterySearchSettings.of(**search_values("universal", {"text": "t"}))
    assert every.search.mlm.mlm_steps == 10_000 and every.finetune.epochs == 3.0
    passages = LotterySearchSettings.of(**search_values("universal", {"text": "t", "mlm_rows": "passages"}))
    assert passages.search.mlm.mlm_rows == "passages"
    moved = TransferSettings.of(**transfer_values("universal", {"text": "t", "controls": ("mlm",)}))
    assert moved.mlm == every.search.mlm and moved.finetune == every.finetune
    assert moved.by_language(70, 3).search == every.search


@pytest.mark.parametrize(
    ("given", "message", "names"),
    [
        ({}, "file of passages: give text", ("text", "preset")),
        ({"text": "t", "mask": "m"}, "leave preset or mask out", ("preset", "mask")),
    ],
)
def test_a_preset_that_cannot_be_used_is_refused(
    given: dict[str, Any], message: str, names: tuple[str, ...]
) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        search_values("universal", given)
    assert raised.value.settings == names
    with pytest.raises(UsageError, match="add mlm to controls"):
        transfer_values("universal", {"text": "t", "controls": ("random",)})
    with pytest.raises(UsageError, match="give text"):
        transfer_values("universal", {"controls": ("random", "mlm")})
    with pytest.raises(UsageError, match="unknown preset 'super-tickets'"):
        search_values("super-tickets", given)


def test_rounds_of_masked_language_modelling_train_as_the_fine_tuning_but_for_what_is_given() -> None:
    finetune = FinetuneSettings.of(batch_size=8, lr=1e-3, max_length=64, epochs=2, precision="fp32", seed=4)
    assert MlmSettings().rounds(finetune) == finetune
    rounds = MlmSettings.of(mlm_steps=5, mlm_max_length=16).rounds(finetune)
    assert rounds.flat() == {**finetune.flat(), "max_steps": 5, "max_length": 16}
    assert MlmSettings.of(mlm_rows="passages", text=None).changed() == []
    assert MlmSettings.of(mlm_lr=1.0, text="t").changed() == ["text", "mlm_lr"]


def test_every_choice_has_its_code() -> None:
    pytest.importorskip("torch")
    from effx.models import exits
    from effx.tickets import plan
    from effx.train import importance, loop

    assert tuple(loop.OPTIMIZERS) == training.OPTIMIZERS
    assert tuple(importance.METHODS) == tickets.IMPORTANCE_METHODS
    assert tuple(plan.KINDS) == tickets.TICKET_KINDS
    assert tuple(exits.POOLINGS) == training.POOLINGS
