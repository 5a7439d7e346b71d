"""Layers are dropped by every strategy, in every family; what follows works for any layers that remain."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModel, PreTrainedTokenizerFast

from effx import data
from effx.artifacts import Checkpoint
from effx.encoding import Encoder
from effx.errors import ArtifactError, UsageError
from effx.export import export
from effx.manifests import LayerReductionRecord
from effx.models import evaluate, infer, load, prune, structure
from effx.specs.exits import EarlyExitSettings
from effx.specs.families import LAST_LAYERS_ONLY
from effx.specs.layer_reduction import CONTRIBUTION, STRATEGIES, remaining
from effx.specs.tasks import TASKS
from effx.specs.tickets import TicketSettings
from effx.specs.tokens import TokenPruningSettings
from effx.specs.training import FinetuneSettings
from effx.tickets import scores as score_files
from effx.train import exits, finetune, tokens
from effx.train import rows as training_rows
from effx.train.layer_reduction import reduce_layers
from effx.train.tickets import draw
from tests.conftest import CONFIGS
from tests.models import tiny
from tests.models.test_surgery import TOLERANCE, skipped

SHORT = {"max_length": 32, "max_steps": 2, "lr": 1e-3}
ANY_LAYERS = [name for name in CONFIGS if name not in LAST_LAYERS_ONLY]


def expected_similarity(folder: Path, texts: list[str]) -> list[float]:
    """Return each layer's mean cosine, from the hidden states that transformers gives, row by row."""
    model = AutoModel.from_pretrained(folder).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    cosines = []
    for text in texts:
        inputs = tokenizer(text, truncation=True, max_length=32, return_tensors="pt")
        arrays = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            states = model(**arrays, output_hidden_states=True).hidden_states
        first = [state[0, 0].double().numpy() for state in states]
        pairs = zip(first, first[1:], strict=False)
        cosines.append([a @ b / np.sqrt((a @ a) * (b @ b)) for a, b in pairs])
    return [float(value) for value in np.mean(cosines, axis=0)]


@pytest.mark.parametrize("family", ANY_LAYERS)
def test_contribution_is_the_cosine_of_hidden_states(
    family: str, encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    encoder = Path(shutil.copytree(encoders[family], tmp_path / family))
    model = AutoModel.from_pretrained(encoder)
    for parameter in model.parameters():  # the initial weights hardly change anything
        parameter.data.normal_(0, 0.2)
    model.save_pretrained(encoder)
    settings = FinetuneSettings.of(layers=2, drop_layers=CONTRIBUTION, limit=40, **SHORT)
    trained = finetune("sst2", encoder, out=tmp_path, data_folder=rows_folder, settings=settings)
    (record,) = trained.manifest.layer_reductions
    rows = data.load(TASKS["sst2"], "train", rows_folder)
    expected = expected_similarity(encoder, [text for (text,) in rows.take(rows.subset(40)).texts])
    assert record.rows == 40 and record.before == (0, 1, 2)
    np.testing.assert_allclose(record.similarity, expected, atol=1e-5)
    assert np.diff(np.sort(expected))[-1] > 1e-4, "the test cannot tell which layer is dropped"
    assert list(record.kept) == [layer for layer in range(3) if layer != int(np.argmax(expected))]
    assert structure(load(trained)).numbers == tuple(layer + 1 for layer in record.kept)
    assert trained.name == f"sst2-{family}-full-layers2-contribution-seq32-s0"


def test_contribution_does_not_depend_on_the_seed(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    first, second = (
        finetune(
            "sst2", encoders["roberta"], out=tmp_path, data_folder=rows_folder,
            settings=FinetuneSettings.of(layers=1, drop_layers=CONTRIBUTION, seed=seed, **SHORT),
        ).manifest.layer_reductions
        for seed in (0, 1)
    )  # fmt: skip
    assert first == second and first[0].rows == 160


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != CONTRIBUTION])
@pytest.mark.parametrize("family", CONFIGS)
def test_dropped_layers_equal_skipped_ones(family: str, strategy: str) -> None:
    model = tiny.model(family, layers=5)
    kept = remaining(strategy, 5, 3)
    dropped = [layer for layer in range(5) if layer not in kept]
    if family in LAST_LAYERS_ONLY and strategy != "top":
        with pytest.raises(UsageError, match="only the last layers"):
            prune(model, layers=dropped)
        return
    inputs = tiny.inputs(model, [9, 4, 7])
    with skipped(model, dropped):
        expected = tiny.logits(model, inputs)
    pruned = prune(copy.deepcopy(model), layers=dropped)
    assert (tiny.logits(pruned, inputs) - expected).abs().max() <= TOLERANCE
    assert (infer(pruned, inputs).logits - expected).abs().max() <= TOLERANCE
    assert [layer.index for layer in structure(pruned).layers] == kept


@pytest.mark.skipif("modernbert" not in CONFIGS, reason="this transformers has no ModernBERT")
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_only_the_last_layers_of_some_families_are_dropped(
    strategy: str, encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    def kept(count: int) -> tuple[int, ...]:
        settings = FinetuneSettings.of(layers=count, drop_layers=strategy, **SHORT)
        trained = finetune("sst2", encoders["modernbert"], out=tmp_path, name=f"keep{count}",
                           data_folder=rows_folder, settings=settings)  # fmt: skip
        return trained.manifest.structure.numbers

    if strategy in ("top", "odd-alternate"):  # of three layers, both drop the third
        assert kept(2) == (1, 2)
    else:
        with pytest.raises(UsageError, match="only the last layers of ModernBERT"):
            kept(2)
        assert not (tmp_path / "keep2").exists()
    assert kept(3) == (1, 2, 3)


@pytest.mark.parametrize("family", ANY_LAYERS)
def test_an_engine_without_lower_layers_passes_its_gate(
    family: str, encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    strategy, kept = {
        "bert": ("symmetric", (0, 2)), "mpnet": ("odd-alternate", (1,)),
    }.get(family, ("bottom", (1, 2)))  # fmt: skip
    settings = FinetuneSettings.of(layers=len(kept), drop_layers=strategy, **SHORT)
    trained = finetune(
        "sst2", encoders[family], out=tmp_path, name="it", data_folder=rows_folder, settings=settings
    )
    record = LayerReductionRecord(strategy=strategy, before=(0, 1, 2), kept=kept)
    assert trained.manifest.layer_reductions == (record,)
    engine = export(trained.folder, "fp32", "onnxruntime", tmp_path / "engines")
    assert engine.manifest.parity is not None and engine.manifest.parity.passed
    assert engine.manifest.drop_layers == (strategy,)
    assert [layer.index for layer in engine.manifest.structure.layers] == list(kept)


def test_what_is_made_of_the_checkpoint_tells_which_layers_were_dropped(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    values = {**SHORT, "layers": 2, "drop_layers": "bottom"}
    where = {"out": tmp_path, "data_folder": rows_folder}
    full = finetune("sst2", encoders["bert"], name="full", settings=FinetuneSettings.of(**values), **where)
    ticket = draw.draw(full.folder, encoders["bert"], name="ticket",
                       settings=TicketSettings.of(level=40, **values), **where)  # fmt: skip
    schedule = TokenPruningSettings.of(schedule=(0.9, 0.6), max_steps=2)
    short = tokens.train(ticket.folder, name="tokens", settings=schedule, **where)
    with_exits = exits.train(short.folder, name="exits",
                             settings=EarlyExitSettings.of(max_steps=2, depth=1.5), **where)  # fmt: skip
    for made in (ticket, short, with_exits):
        assert made.manifest.layer_reductions == full.manifest.layer_reductions
        assert structure(load(made)).numbers == (2, 3)
    assert with_exits.manifest.structure.exits == (2,)
    again = finetune("sst2", full.folder, name="again",
                     settings=FinetuneSettings.of(**{**SHORT, "layers": 1}), **where)  # fmt: skip
    assert [(part.strategy, part.kept) for part in again.manifest.layer_reductions] == [
        ("bottom", (1, 2)), ("top", (1,)),
    ]  # fmt: skip
    engine = export(with_exits.folder, "exit+tokens", "onnxruntime", tmp_path / "engines")
    assert engine.manifest.parity is not None and engine.manifest.parity.passed
    assert engine.manifest.drop_layers == ("bottom",)
    other = TicketSettings.of(level=40, **{**values, "drop_layers": "top"})
    with pytest.raises(UsageError, match="keep other layers than those of the checkpoint"):
        draw.draw(full.folder, encoders["bert"], name="other", settings=other, **where)


def test_tickets_of_a_search_have_the_layers_that_were_scored(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    settings = TicketSettings.of(level=40, layers=2, drop_layers=CONTRIBUTION, **SHORT)
    where = {"out": tmp_path, "data_folder": rows_folder}
    full = finetune("sst2", encoders["bert"], name="full", settings=settings.finetune, **where)
    path = tmp_path / "scores.json"
    draw.write_scores(full.folder, path, data_folder=rows_folder, pruning=settings.pruning,
                      training=settings.finetune.training)  # fmt: skip
    scored, about = score_files.read(path)
    kept = [layer.index for layer in full.manifest.structure.layers]
    assert about["layers"] == kept
    ticket = draw.draw_scored("sst2", encoders["bert"], path, name="ticket", settings=settings, **where)
    assert [layer.index for layer in ticket.manifest.structure.layers] == kept
    (record,) = ticket.manifest.layer_reductions
    assert (record.strategy, list(record.kept), record.similarity) == (CONTRIBUTION, kept, None)
    other = next(layers for layers in ([0, 1], [1, 2]) if layers != kept)
    score_files.write(path, scored, checkpoint=about["checkpoint"], layers=other)
    ticket = draw.draw_scored("sst2", encoders["bert"], path, name="other", settings=settings, **where)
    assert [layer.index for layer in ticket.manifest.structure.layers] == other


def test_similarity_counts_every_row_once(checkpoint: Checkpoint, rows_folder: Path) -> None:
    rows = data.load(checkpoint.task, "validation", rows_folder)
    model, encoder = load(checkpoint), Encoder(checkpoint.folder, 32)
    together = evaluate.first_token_similarity(model, encoder(rows.texts), batch_size=7)
    single = [evaluate.first_token_similarity(model, encoder([text])) for text in rows.texts]
    np.testing.assert_allclose(together, np.mean(single, axis=0), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategy": "middle"}, "unknown layer reduction"),
        ({"kept": (0, 1)}, "expected .0, 2., as symmetric keeps"),
        ({"kept": (0, 3)}, "layer 3 is not in before"),
        ({"kept": (2, 0)}, "expected rising numbers"),
        ({"similarity": (0.1, 0.2, 0.3), "rows": 5}, "expected null, as the strategy is symmetric"),
        ({"strategy": CONTRIBUTION, "similarity": (0.1, 0.2), "rows": 5}, "expected 3 numbers"),
        ({"strategy": CONTRIBUTION, "similarity": (0.1, 0.2, 0.3), "rows": 5}, "expected .0, 1., as contrib"),
        ({"strategy": CONTRIBUTION, "similarity": (0.1, 2.0, 0.3), "rows": 5}, "numbers from -1 to 1"),
        ({"strategy": CONTRIBUTION, "rows": 5}, "expected both or neither"),
    ],
)
def test_a_record_that_contradicts_itself_is_refused(change: dict[str, object], message: str) -> None:
    values = {"strategy": "symmetric", "before": (0, 1, 2), "kept": (0, 2)}
    LayerReductionRecord(**values)
    with pytest.raises((ArtifactError, UsageError, ValueError), match=message):
        LayerReductionRecord(**{**values, **change})


def test_similarity_of_a_batch_that_is_run_again_is_counted_once(
    checkpoint: Checkpoint, rows_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a batch does not fit in memory, and smaller ones are run instead."""
    rows = data.load(checkpoint.task, "validation", rows_folder)
    model, encoded = load(checkpoint), Encoder(checkpoint.folder, 32)(rows.texts)
    expected = evaluate.first_token_similarity(model, encoded)
    over = evaluate._over

    def twice(model: Any, encoded: Any, batch_size: int, run: Any) -> None:
        over(model, encoded, batch_size, run)
        over(model, encoded, 3, run)

    monkeypatch.setattr(evaluate, "_over", twice)
    np.testing.assert_allclose(evaluate.first_token_similarity(model, encoded), expected, atol=1e-6)


def _reduced(checkpoint: Checkpoint, rows_folder: Path, kept: list[int] | None, **values: Any) -> Any:
    model, encoder = tiny.model("bert"), Encoder(checkpoint.folder, 32)
    rows = data.load(checkpoint.task, "train", rows_folder)
    record = reduce_layers("tiny", model, FinetuneSettings.of(**values), encoder, rows, kept)
    return record, [layer.index for layer in structure(model).layers]


@pytest.mark.parametrize("kept", [[0, 1, 2], [2], [1, 3]])
def test_layers_that_were_chosen_before_are_those_of_the_settings(
    kept: list[int], checkpoint: Checkpoint, rows_folder: Path
) -> None:
    contribution = {"layers": 2, "drop_layers": CONTRIBUTION}
    record, layers = _reduced(checkpoint, rows_folder, [0, 2], **contribution)
    assert list(record.kept) == layers == [0, 2]
    with pytest.raises(UsageError, match="keep other layers than those of the checkpoint"):
        _reduced(checkpoint, rows_folder, kept, **contribution)


@pytest.mark.parametrize("strategy", [None, *(name for name in STRATEGIES if name != CONTRIBUTION)])
def test_a_reduction_that_drops_nothing_is_not_recorded(
    strategy: str | None, checkpoint: Checkpoint, rows_folder: Path
) -> None:
    values = {} if strategy is None else {"drop_layers": strategy}
    assert _reduced(checkpoint, rows_folder, None, layers=3, **values) == (None, [0, 1, 2])


def test_contribution_is_measured_on_the_share_that_is_trained_on(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    settings = FinetuneSettings.of(layers=2, drop_layers=CONTRIBUTION, share=0.25, seed=3, **SHORT)
    trained = finetune("sst2", encoders["bert"], out=tmp_path, data_folder=rows_folder, settings=settings)
    (record,) = trained.manifest.layer_reductions
    rows = data.load(TASKS["sst2"], "train", rows_folder)
    of_share = rows.take(training_rows.chosen(rows, settings.training))
    assert record.rows == len(of_share) == len(rows) // 4
    expected = expected_similarity(encoders["bert"], [text for (text,) in of_share.texts])
    np.testing.assert_allclose(record.similarity, expected, atol=1e-5)
