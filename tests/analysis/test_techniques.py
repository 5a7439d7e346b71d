"""What was reduced in an engine, read from its result."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from effx.analysis.baseline import baseline_of
from effx.analysis.techniques import Compared, Technique, kind, series, technique
from effx.manifests import SparsityRecord
from tests.analysis.simulated_run import engine, simulated_run


def test_engines_made_elsewhere_are_not_counted_as_unreduced_or_reduced() -> None:
    """Nothing is known about their reduction; tools are not joined into one series."""
    names = []
    for tool in ("pytorch 2.14.1", "onnx.quantize 0.1.0"):
        made = engine("theirs", made_elsewhere=tool, structure=None, weight_remaining=None, parity=None)
        run = replace(simulated_run("theirs"), engine=made)
        assert technique(run) == Technique("made elsewhere", None, tool)
        assert not technique(run).is_reduction
        names.append(series(run, technique(run)))
    assert names == [
        "made elsewhere (pytorch 2.14.1), fp32, onnxruntime",
        "made elsewhere (onnx.quantize 0.1.0), fp32, onnxruntime",
    ]
    ours = simulated_run("ours", precision="fp32")
    assert series(ours, technique(ours)) == "not reduced, fp32, onnxruntime"


@pytest.mark.parametrize(
    ("facts", "name"),
    [
        ({"objective": "task", "kind": "imp"}, "zeroed"),
        ({"objective": "task"}, "zeroed"),  # before kinds were recorded
        ({"kind": "random"}, "zeroed (random)"),
        ({"kind": "one-shot"}, "zeroed (one-shot)"),
        ({"objective": "task", "kind": "standard"}, "zeroed (standard)"),
        ({"objective": "task", "kind": "imp", "init": "fresh"}, "zeroed (imp, fresh weights)"),
        ({"objective": "task", "kind": "imp", "init": "shuffled"}, "zeroed (imp, shuffled layers)"),
        ({"objective": "task", "kind": "imp", "rewind": 7}, "zeroed (imp, rewound to step 7)"),
        ({"objective": "mlm", "kind": "imp"}, "zeroed (imp of mlm)"),
        ({"mask": "0" * 64}, "zeroed (mask of a file)"),
        ({"mask": "0" * 64, "init": "fresh"}, "zeroed (mask of a file, fresh weights)"),
    ],
)
def test_masks_that_were_found_otherwise_are_other_techniques(facts: dict[str, Any], name: str) -> None:
    sparsity = SparsityRecord.model_validate({"share": 0.5, "zeros": 5, "of": 10, **facts})
    run = replace(simulated_run("ours", precision="fp32"), engine=engine("ours", sparsity=sparsity))
    assert technique(run) == Technique(name, 0.5, "50% zeros")
    assert series(run, technique(run)).startswith(f"{name}, ")


def test_ways_of_running_are_series_of_their_own() -> None:
    names = []
    for variant in ("fp32", "buckets", "buckets8", "exit-if", "threads1"):
        run = simulated_run("ours", precision="fp32")
        run = replace(run, engine=replace(run.engine, variant=variant))
        names.append(series(run, technique(run)))
    assert len({*names}) == 5 and "not reduced, buckets of 8 tokens, fp32, onnxruntime" in names


def test_another_encoder_is_a_technique() -> None:
    """Plain engines of two encoders are not joined, in series and in the legends of frontiers."""
    runs = [
        replace(run, engine=replace(run.engine, model=run.name))
        for run in (simulated_run("bert", precision="fp32"), simulated_run("distilbert", precision="fp32"))
    ]
    both, one = Compared.of(runs), Compared.of(runs[:1])
    assert [series(run, technique(run), both) for run in runs] == [
        "bert: not reduced, fp32, onnxruntime", "distilbert: not reduced, fp32, onnxruntime",
    ]  # fmt: skip
    assert [kind(run, both) for run in runs] == ["bert: not reduced", "distilbert: not reduced"]
    assert series(runs[0], technique(runs[0]), one) == "not reduced, fp32, onnxruntime"
    assert kind(runs[0], one) == "not reduced"
    elsewhere = engine("theirs", made_elsewhere="onnx", model=None, structure=None, weight_remaining=None)
    assert kind(replace(runs[0], engine=elsewhere), both) == "made elsewhere"


def test_the_baseline_is_known_to_be_unreduced() -> None:
    """Not the better one that was made elsewhere, unless there is no other."""
    better = replace(
        simulated_run("theirs", precision="fp32"), engine=engine("theirs", made_elsewhere="pytorch 2.14.1")
    )
    ours = simulated_run("ours", wrong=[0, 1, 2], precision="fp32")
    assert better.quality.value > ours.quality.value
    assert baseline_of([better, ours]) is ours
    assert baseline_of([better]) is better
