"""Names of techniques that are the same on every task and for every seed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from effx.analysis import shared_techniques
from effx.manifests import (
    CheckpointOrigin,
    ExitTarget,
    RemovedCounts,
    SparsityRecord,
    TicketRecord,
    TokensTarget,
)
from effx.results import StructureSummary
from tests.analysis.simulated_run import simulated_run

FULL = StructureSummary(6, [12] * 6, [1536] * 6, 12, 1536)
THREE = StructureSummary(3, [12] * 3, [1536] * 3, 12, 1536)
BASELINE = replace(
    simulated_run("full.fp32", precision="fp32"),
    engine=replace(simulated_run("full.fp32", precision="fp32").engine, structure=FULL, max_length=128),
)


def origin(**facts: object) -> CheckpointOrigin:
    return CheckpointOrigin(seed=0, settings="a" * 64, trained_further=False, **facts)  # type: ignore[arg-type]


def zeros(**facts: object) -> SparsityRecord:
    return SparsityRecord(share=0.7, zeros=70, of=100, **facts)  # type: ignore[arg-type]


def ticket(level: str = "40", removed: int = 20, **changes: object) -> TicketRecord:
    record = TicketRecord(kind="winning", level=level, importance="taylor", granularity="ffns", min_heads=1,
                          removed=RemovedCounts(heads=removed))  # fmt: skip
    return record.model_copy(update=changes)


PRUNED = {"structure": replace(FULL, heads=[8] * 6), "weight_remaining": 0.835}
RANDOM = ticket(removed=25, kind="random", rounds=3)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "fp32"),
        ({"variant": "int8+seq32"}, "int8+seq32"),
        ({"variant": "seq32+int8"}, "int8+seq32"),  # the order of parts does not matter
        ({"structure": StructureSummary(3, [12] * 3, [1536] * 3, 12, 1536), "weight_remaining": 0.76},
         "3 layers, fp32"),
        (PRUNED, "84% of weights, fp32"),  # an earlier version
        ({**PRUNED, "origin": origin(ticket=ticket())}, "ticket 40 %, fp32"),
        ({**PRUNED, "weight_remaining": 0.79, "origin": origin(ticket=RANDOM)},
         "random ticket 40 % (3 rounds), fp32"),
        ({**PRUNED, "origin": origin(speedup=2.0)}, "pruned for 2x, fp32"),
        ({"structure": THREE, "weight_remaining": 0.76, "drop_layers": ["top"]}, "3 layers, fp32"),
        ({"structure": THREE, "weight_remaining": 0.76, "drop_layers": ["bottom"]}, "3 layers, bottom, fp32"),
        ({"structure": THREE, "weight_remaining": 0.76, "drop_layers": ["top", "top", "symmetric"]},
         "3 layers, top, then symmetric, fp32"),
        ({"structure": THREE, "weight_remaining": 0.7, "drop_layers": ["bottom"],
          "origin": origin(ticket=ticket())}, "3 layers, bottom, ticket 40 %, fp32"),
        ({"structure": replace(THREE, heads=[8] * 3), "weight_remaining": 0.7, "drop_layers": ["bottom"]},
         "3 layers, bottom, 70% of weights, fp32"),  # an earlier version
        ({"drop_layers": ["bottom"]}, "fp32"),  # all layers were kept
        ({"sparsity": zeros()}, "70% zeros (mask of a file), fp32"),
        ({"sparsity": zeros(objective="task")}, "70% zeros, fp32"),
        ({"sparsity": zeros(objective="task", kind="imp")}, "70% zeros, fp32"),
        ({"sparsity": zeros(kind="random")}, "70% zeros (random), fp32"),
        ({"sparsity": zeros(kind="one-shot")}, "70% zeros (one-shot), fp32"),
        ({"sparsity": zeros(objective="task", kind="imp", init="fresh")},
         "70% zeros (imp, fresh weights), fp32"),
        ({"sparsity": zeros(objective="task", kind="imp", rewind=5)},
         "70% zeros (imp, rewound to step 5), fp32"),
        ({"sparsity": zeros(objective="mlm", kind="imp")}, "70% zeros (imp of mlm), fp32"),
        ({"variant": "exit", "origin": origin(exits=ExitTarget(max_drop=0.01))},
         "exits for a loss of 0.01, exit"),
        ({"variant": "exit", "origin": origin(exits=ExitTarget(depth=4.0))}, "exits for depth 4, exit"),
        ({"variant": "int8", "origin": origin(exits=ExitTarget(depth=4.0))}, "int8"),  # its exits are not run
        ({"variant": "tokens", "structure": replace(FULL, tokens=[0.5] * 6)}, "50% of tokens, tokens"),
        ({"variant": "tokens", "origin": origin(tokens=TokensTarget(max_drop=0.02))},
         "tokens for a loss of 0.02, tokens"),
        ({"regime": "last-2"}, "last-2, fp32"),
        ({"origin": origin(distilled=True)}, "distilled, fp32"),
        ({"max_length": 32}, "at 32 tokens, fp32"),
        ({"max_length": 32, "variant": "seq32"}, "seq32"),
        ({"made_elsewhere": "optimum"}, None),
    ],
)  # fmt: skip
def test_title_is_what_was_asked_for(changes: dict[str, object], expected: str | None) -> None:
    run = replace(BASELINE, engine=replace(BASELINE.engine, **changes))  # type: ignore[arg-type]
    assert shared_techniques.title(run, BASELINE) == expected
