"""How an engine's checkpoint was made: seeds of a method have all but the seed in common."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from effx.artifacts import Checkpoint, Engine
from effx.export import origin
from effx.manifests import (
    CheckpointManifest,
    CheckpointOrigin,
    DistillationRecord,
    ExitTarget,
    RemovedCounts,
    SharedRecord,
    SparsityRecord,
    TicketRecord,
)
from effx.profile.record import of_engine
from effx.specs.training import FinetuneSettings


def test_an_engine_and_its_results_say_how_its_checkpoint_was_made(
    checkpoint: Checkpoint, engines_folder: Path
) -> None:
    engine = Engine.open(engines_folder / "tiny.int8.onnxruntime")
    found = engine.manifest.origin
    assert found is not None and found == origin.of(checkpoint.manifest) == of_engine(engine).origin
    assert found.seed == checkpoint.manifest.seed and not found.trained_further


def test_reductions_are_recorded_as_they_were_asked_for(reduced_checkpoint: Checkpoint) -> None:
    found = origin.of(reduced_checkpoint.manifest)
    assert found is not None and found.trained_further
    assert found.exits == ExitTarget(depth=2.0)


def test_a_seed_changes_nothing_else(
    checkpoint: Checkpoint, encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    from effx.train import finetune

    settings = FinetuneSettings.of(epochs=1, max_length=32, lr=1e-3, seed=5)
    other = finetune("sst2", encoders["bert"], out=tmp_path, name="other", data_folder=rows_folder,
                     settings=settings)  # fmt: skip
    first, second = (origin.of(each.manifest) for each in (checkpoint, other))
    assert first is not None and second is not None
    assert (first.seed, second.seed) == (0, 5)
    assert first.model_copy(update={"seed": 5}) == second


def _changed(manifest: CheckpointManifest, **changes: object) -> CheckpointManifest:
    return manifest.model_copy(update=changes)


TICKET = TicketRecord(kind="winning", level="40", importance="taylor", granularity="ffns", min_heads=1,
                      removed=RemovedCounts(heads=3))  # fmt: skip


@pytest.mark.parametrize(
    "other",
    [
        lambda manifest: _changed(manifest, ticket=TICKET),
        lambda manifest: _changed(manifest, max_length=64),
        lambda manifest: _changed(manifest, model="another"),
        lambda manifest: _changed(
            manifest, training=manifest.training.model_copy(
                update={"settings": {**manifest.training.settings, "epochs": 2}})),
        lambda manifest: _changed(
            manifest, training=manifest.training.model_copy(
                update={"distillation": DistillationRecord(teacher="t", teacher_digest="0" * 64, settings={},
                                                           hidden_layers=0)})),
        lambda manifest: _changed(
            manifest, training=manifest.training.model_copy(update={"rows_digest": "1" * 64})),
        lambda manifest: _changed(manifest, sparsity=SparsityRecord(share=0.5, zeros=1, of=2, mask="1" * 64)),
    ],
)  # fmt: skip
def test_other_settings_are_another_method(checkpoint: Checkpoint, other: object) -> None:
    changed = origin.of(other(checkpoint.manifest))  # type: ignore[operator]
    first = origin.of(checkpoint.manifest)
    assert first is not None and changed is not None and changed.settings != first.settings


def test_what_a_ticket_happened_to_lose_is_not_a_setting(checkpoint: Checkpoint) -> None:
    more = TICKET.model_copy(update={"removed": RemovedCounts(heads=4)})
    found = [origin.of(_changed(checkpoint.manifest, ticket=ticket)) for ticket in (TICKET, more)]
    assert found[0] is not None and found[1] is not None and found[0].settings == found[1].settings


def test_an_engine_of_an_earlier_version_opens_without(engines_folder: Path, tmp_path: Path) -> None:
    from effx import files, records
    from effx.artifacts import seal

    folder = Path(shutil.copytree(engines_folder / "tiny.fp32.onnxruntime", tmp_path / "old"))
    value = records.read_json(folder / "engine.json")
    del value["origin"]
    files.write_json(folder / "engine.json", seal(Engine, value))
    assert Engine.open(folder).manifest.origin is None


def _of(manifest: CheckpointManifest, **changes: object) -> CheckpointOrigin:
    found = origin.of(_changed(manifest, **changes))
    assert found is not None
    return found


def _zeros(mask: str, **changes: str) -> SparsityRecord:
    return SparsityRecord(share=0.5, zeros=1, of=2, mask=mask, **changes)


def test_masks_that_were_given_are_told_apart_by_their_content_and_others_are_not(
    checkpoint: Checkpoint,
) -> None:
    manifest, one, other = checkpoint.manifest, "1" * 64, "2" * 64
    assert _of(manifest, sparsity=_zeros(one)) == _of(manifest, sparsity=_zeros(one))
    assert _of(manifest, sparsity=_zeros(one)).settings != _of(manifest, sparsity=_zeros(other)).settings
    for found in ({"kind": "random"}, {"objective": "task"}):  # every seed has its own; an older release's
        records = [_zeros(mask, **found) for mask in (one, other)]
        assert _of(manifest, sparsity=records[0]) == _of(manifest, sparsity=records[1])
        assert not _of(manifest, sparsity=records[0]).unrecorded


def _taught_by(manifest: CheckpointManifest, teacher: str, digest: str) -> CheckpointOrigin:
    record = DistillationRecord(teacher=teacher, teacher_digest=digest, settings={}, hidden_layers=0)
    return _of(manifest, training=manifest.training.model_copy(update={"distillation": record}))


def test_teachers_of_other_seeds_are_the_same_teacher(checkpoint: Checkpoint) -> None:
    manifest = checkpoint.manifest
    first = _taught_by(manifest, "sst2-bert-full-s0", "1" * 64)
    assert first == _taught_by(manifest, "sst2-bert-full-s1", "2" * 64)
    assert first.settings != _taught_by(manifest, "sst2-bert-frozen-s0", "1" * 64).settings
    assert first.distilled and first.unrecorded


def test_what_is_not_recorded_is_said(checkpoint: Checkpoint) -> None:
    manifest = checkpoint.manifest
    assert not _of(manifest).unrecorded
    found = _zeros("1" * 64, kind="imp", objective="mlm")  # the text is in no manifest
    assert _of(manifest, sparsity=found).unrecorded
    together = SharedRecord(tasks=("cola", "sst2"), average=0.5, encoder="0" * 64)
    assert not _of(manifest, shared=together).trained_further
    assert _of(manifest, shared=together.model_copy(update={"tickets": {"sst2": "1" * 64}})).trained_further
