"""A model fine-tuned elsewhere becomes a checkpoint with its answers; what is unclear is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from effx import corpus, data
from effx.artifacts import Checkpoint
from effx.encoding import Encoder
from effx.errors import ArtifactError, DataError, UsageError
from effx.files import write_json
from effx.manifests import IMPORT_READER
from effx.models import evaluate, huggingface, load, save, sparse
from effx.specs.data import DataSettings, DataSource
from effx.specs.heads import HeadSettings
from effx.specs.imports import ImportSettings
from effx.specs.tasks import TASKS, Task
from effx.specs.training import FinetuneSettings
from effx.train import as_checkpoint, finetune, import_model
from tests.conftest import CONFIGS, write_rows
from tests.models.huggingface.saved import change_config, classifier

SST2 = ImportSettings(task="sst2")


@pytest.fixture
def model(encoders: dict[str, Path], tmp_path: Path) -> PreTrainedModel:
    """``m``: a classifier whose outputs are in another order than the task's labels."""
    return classifier(encoders["bert"], tmp_path / "m", ("POSITIVE", "NEGATIVE"))


@torch.no_grad()
def transformers_logits(folder: Path, texts: list[tuple[str, ...]], max_length: int = 64) -> np.ndarray:
    """What transformers computes for each row alone."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    loaded = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    rows = [
        loaded(**tokenizer(*text, truncation=True, max_length=max_length, return_tensors="pt")).logits[0]
        for text in texts
    ]
    return torch.stack(rows).numpy()


def ours(checkpoint: Checkpoint, texts: list[tuple[str, ...]]) -> np.ndarray:
    return evaluate.logits(load(checkpoint), Encoder(checkpoint.folder, checkpoint.max_length)(texts))


@pytest.mark.parametrize("name", CONFIGS)
def test_an_imported_model_answers_and_scores_as_in_transformers(
    name: str, encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    labels = ("POSITIVE", "NEGATIVE")
    classifier(encoders[name], tmp_path / "m", labels, dtype=torch.float16, max_shard_size="20KB")
    made = import_model(tmp_path / "m", out=tmp_path / "c", data_folder=rows_folder, settings=SST2)
    rows = data.load(TASKS["sst2"], "validation", rows_folder)
    theirs = transformers_logits(tmp_path / "m", rows.texts, made.max_length)
    np.testing.assert_allclose(ours(made, rows.texts), theirs[:, [1, 0]], atol=1e-5)
    assert made.manifest.metrics["accuracy"] == ((1 - theirs.argmax(1)) == rows.labels).mean()
    config = json.loads((made.folder / "config.json").read_text())
    assert config["id2label"] == {"0": "NEGATIVE", "1": "POSITIVE"}  # the names that its users know


def test_the_manifest_records_the_origin(
    model: PreTrainedModel, rows_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = import_model(
        tmp_path / "m", out=tmp_path / "c", data_folder=rows_folder,
        settings=ImportSettings(task="sst2", labels=("positive", "negative"), max_length=16),
    ).manifest  # fmt: skip
    assert (manifest.name, manifest.model, manifest.max_length) == ("sst2-m", "m", 16)
    assert manifest.training.kind is None and manifest.imported is not None
    assert manifest.imported.settings == {"labels": ["positive", "negative"], "max_length": 16}
    assert manifest.imported.head == "kept, its outputs in the given order: positive, negative"
    assert manifest.data == data.recorded(manifest.task_definition, rows_folder)
    assert manifest.validation_rows == 90
    stored = json.dumps(manifest.to_json())
    assert str(tmp_path) not in stored and str(rows_folder) not in stored, "a manifest names no folders"
    printed = capsys.readouterr().err
    for line in ("model " + str(tmp_path / "m"), "head kept, its outputs", "at most 16 tokens"):
        assert line in printed


def test_the_name_of_the_rows_names_the_task_and_the_model_its_classes(
    encoders: dict[str, Path], tmp_path: Path
) -> None:
    """The rows have two of the model's three classes; none is lost."""
    classifier(encoders["bert"], tmp_path / "m", ("praise", "question", "complaint"))
    for split in ("train", "validation"):
        rows = [{"text": f"{word} {i}", "label": word} for word in ("complaint", "praise") for i in range(9)]
        write_rows(tmp_path / "tickets" / f"{split}.jsonl", rows)
    task = import_model(tmp_path / "m", out=tmp_path / "c", data_folder=tmp_path / "tickets").task
    assert (task.name, task.labels) == ("tickets", ("praise", "question", "complaint"))


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (("joy", "anger"), {}, "its labels are joy, anger, those of the task negative, positive"),
        (None, {}, "LABEL_0 to LABEL_1, which does not say .* set labels"),
        (("positive", "negative", "neutral"), {}, "its labels are positive, negative, neutral"),
        (("a", "b"), {"problem_type": "multi_label_classification"}, "not one for classification"),
        (("score",), {}, "set labels to the class of a low score"),
    ],
)
def test_a_head_of_another_task_is_refused(
    labels: tuple[str, ...] | None,
    options: dict[str, str],
    message: str,
    encoders: dict[str, Path],
    rows_folder: Path,
    tmp_path: Path,
) -> None:
    classifier(encoders["bert"], tmp_path / "m", labels, **options)
    with pytest.raises(UsageError, match=message) as caught:
        import_model(tmp_path / "m", out=tmp_path / "c", data_folder=rows_folder, settings=SST2)
    assert set(caught.value.settings) == {"labels", "keep_head", "task"}
    assert not (tmp_path / "c").exists() or not list((tmp_path / "c").iterdir())


def test_other_names_are_kept_on_request(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    classifier(encoders["bert"], tmp_path / "m", ("bad", "good"))
    made = import_model(tmp_path / "m", out=tmp_path / "c", data_folder=rows_folder,
                        settings=ImportSettings(task="sst2", keep_head=True))  # fmt: skip
    rows = data.load(TASKS["sst2"], "validation", rows_folder)
    theirs = transformers_logits(tmp_path / "m", rows.texts)
    np.testing.assert_allclose(ours(made, rows.texts), theirs, atol=1e-5)
    assert load(made).config.id2label == {0: "bad", 1: "good"}


def test_a_regressor_gives_its_values(encoders: dict[str, Path], tmp_path: Path) -> None:
    classifier(encoders["roberta"], tmp_path / "m", ("LABEL_0",), problem_type="regression")
    rng = np.random.default_rng(0)
    for split in ("train", "validation"):
        rows = [
            {"sentence1": text, "sentence2": "a film", "label": round(float(rng.uniform(0, 5)), 2)}
            for text in corpus.texts(split)[:30]
        ]
        write_rows(tmp_path / "rows" / f"{split}.jsonl", rows)
    made = import_model(tmp_path / "m", out=tmp_path / "c", data_folder=tmp_path / "rows",
                        settings=ImportSettings(task="stsb"))  # fmt: skip
    loaded = data.load(TASKS["stsb"], "validation", tmp_path / "rows")
    theirs = transformers_logits(tmp_path / "m", loaded.texts)
    np.testing.assert_allclose(ours(made, loaded.texts), theirs, atol=1e-5)
    assert made.manifest.metrics["pearson"] == pytest.approx(
        np.corrcoef(theirs[:, 0], loaded.labels)[0, 1], abs=1e-4
    )


SIGMOID = {"activation_fn": "torch.nn.modules.activation.Sigmoid", "version": "5.0.0"}


@pytest.mark.parametrize("file", ["config.json", "config_sentence_transformers.json"])
def test_a_cross_encoder_scores_pairs(encoders: dict[str, Path], tmp_path: Path, file: str) -> None:
    """One output is a value for a regression, and the logit of the second of two classes otherwise."""
    classifier(encoders["bert"], tmp_path / "m", ("LABEL_0",))
    if file == "config.json":
        change_config(tmp_path / "m", sentence_transformers=SIGMOID)
    else:
        (tmp_path / "m" / file).write_text(json.dumps({"model_type": "CrossEncoder", **SIGMOID}))
    for split in ("train", "validation"):
        rows = [{"sentence1": f"is it {i}", "sentence2": f"it is {i % 3}", "label": i % 2} for i in range(30)]
        write_rows(tmp_path / "relevance" / f"{split}.jsonl", rows)
    made = import_model(tmp_path / "m", out=tmp_path / "c", data_folder=tmp_path / "relevance")
    texts = data.load(made.task, "validation", tmp_path / "relevance").texts
    theirs = transformers_logits(tmp_path / "m", texts)
    np.testing.assert_allclose(ours(made, texts), np.hstack([np.zeros_like(theirs), theirs]), atol=1e-5)
    value = import_model(tmp_path / "m", out=tmp_path / "c", data_folder=tmp_path / "relevance",
                         settings=ImportSettings(task="stsb"))  # fmt: skip
    assert value.manifest.imported is not None and "before the sigmoid" in value.manifest.imported.head
    np.testing.assert_allclose(ours(value, texts), theirs, atol=1e-5)


TRANSFORMER = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.Transformer"}
QUERY = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
OF_A_CROSS_ENCODER: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any], str]] = [
    (QUERY, {}, {}, "puts the prompt 'query:' before each text"),
    ({"prompts": {"query": "query: "}}, {"max_seq_length": 12}, {}, ""),
    ({}, {"max_seq_length": 12, "transformer_task": "sequence-classification"}, {}, ""),
    ({}, {"processing_kwargs": {"text": {"max_length": 8}}}, {}, "effx does not compute processing_kwargs"),
    ({}, {"modality_config": {"text": {"method_output_name": "hidden"}}}, {}, "effx computes logits of forw"),
    ({"truncate_dim": 3}, {}, {}, "effx does not compute truncate_dim: 3"),
    (
        {},
        {},
        {"type": "sentence_transformers.cross_encoder.modules.LogitScore"},
        "has the modules LogitScore",
    ),
]


@pytest.mark.parametrize(("config", "length", "module", "message"), OF_A_CROSS_ENCODER)
def test_the_files_of_a_cross_encoder_are_read(
    config: dict[str, Any],
    length: dict[str, Any],
    module: dict[str, Any],
    message: str,
    encoders: dict[str, Path],
    tmp_path: Path,
) -> None:
    classifier(encoders["bert"], folder := tmp_path / "m", ("LABEL_0",))
    write_json(folder / "config_sentence_transformers.json", {"model_type": "CrossEncoder", **config})
    write_json(folder / "modules.json", [{**TRANSFORMER, **module}])
    write_json(folder / "sentence_bert_config.json", length)
    if not message:
        assert huggingface.load(folder, TASKS["stsb"]).max_length == 12
        return
    with pytest.raises(UsageError, match=message):
        huggingface.load(folder, TASKS["stsb"])
    assert huggingface.load(folder, TASKS["stsb"], head=HeadSettings(fresh_head=True)).fresh


def test_without_a_task_or_rows_the_user_is_asked(model: PreTrainedModel, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="what does the model predict") as caught:
        import_model(tmp_path / "m", out=tmp_path / "c")
    assert caught.value.settings == ("task", "data")


def test_the_kind_of_rows_without_labels_is_that_of_the_head(model: PreTrainedModel, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"text": "a warm film"}, {"text": "a dull film"}])
    for kind, message in (
        ("multi-label", "the rows have no labels, and its head is for classification, not for multi-label"),
        ("ranking", "ranking"),
    ):
        source = DataSource(str(tmp_path / "rows.jsonl"), DataSettings(task_kind=kind))
        with pytest.raises((UsageError, DataError), match=message):
            import_model(tmp_path / "m", out=tmp_path / "c", data_folder=source)
    source = DataSource(str(tmp_path / "rows.jsonl"), DataSettings(task_kind="classification"))
    imported = import_model(tmp_path / "m", out=tmp_path / "c", data_folder=source)
    assert (imported.task.kind, imported.task.labels) == ("classification", ("POSITIVE", "NEGATIVE"))


def test_a_checkpoint_is_not_imported(checkpoint: Checkpoint) -> None:
    assert as_checkpoint(checkpoint.folder) == checkpoint.folder
    assert as_checkpoint(checkpoint.folder.parent) == checkpoint.folder.parent
    with pytest.raises(UsageError, match="maximum length of a checkpoint are already known") as caught:
        as_checkpoint(checkpoint.folder, settings=ImportSettings(labels=("a", "b")))
    assert caught.value.settings == ("labels",)


def test_a_path_that_does_not_exist_is_reported_as_missing_also_with_import_settings(tmp_path: Path) -> None:
    missing = as_checkpoint(tmp_path / "none", settings=ImportSettings(task="sst2", labels=("a", "b")))
    with pytest.raises(ArtifactError, match="none does not exist"):
        Checkpoint.find_all([missing])
    with pytest.raises(ArtifactError, match="none does not exist|none is not a checkpoint"):
        Checkpoint.open(missing)


def test_what_an_earlier_version_read_in_another_way_is_imported_again(
    model: PreTrainedModel, rows_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def reader() -> int:
        folder = as_checkpoint(tmp_path / "m", out=tmp_path / "c", data_folder=rows_folder,
                               settings=ImportSettings(task="sst2"))  # fmt: skip
        record = Checkpoint.open(folder).manifest.imported
        assert record is not None
        return record.reader

    with monkeypatch.context() as earlier:
        earlier.setattr("effx.train.importing.IMPORT_READER", 1)
        assert reader() == reader() == 1
    capsys.readouterr()
    assert reader() == IMPORT_READER > 1
    assert "or how effx reads it have changed" in capsys.readouterr().err


def test_a_model_is_imported_once_and_again_when_something_changed(
    model: PreTrainedModel, rows_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def imported(**settings: object) -> str:
        folder = as_checkpoint(tmp_path / "m", out=tmp_path / "c", data_folder=rows_folder,
                               settings=ImportSettings(task="sst2", **settings))  # fmt: skip
        assert folder == tmp_path / "c/sst2-m"
        return Checkpoint.open(folder).digest

    first = imported()
    assert imported() == first and "was imported from" in capsys.readouterr().err
    shorter = imported(max_length=16)
    assert shorter != first and imported(max_length=16) == shorter
    change_config(tmp_path / "m", hidden_dropout_prob=0.3)
    assert imported(max_length=16) != shorter
    assert "have changed" in capsys.readouterr().err


def test_a_name_of_the_hub_needs_a_task() -> None:
    with pytest.raises(UsageError, match="does not exist.*name its task or its rows") as caught:
        as_checkpoint("someone/classifier")
    assert caught.value.settings == ("task", "data")


def test_a_model_of_the_hub_is_imported_by_its_name(
    model: PreTrainedModel,
    rows_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Read offline, from the cache of huggingface_hub."""
    repository = tmp_path / "cache/models--someone--classifier"
    shutil.copytree(tmp_path / "m", repository / "snapshots/0123")
    (repository / "refs").mkdir()
    (repository / "refs/main").write_text("0123")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def imported(**settings: object) -> Checkpoint:
        given = ImportSettings(task="sst2", **settings)
        folder = as_checkpoint("someone/classifier", out=tmp_path / "c", data_folder=rows_folder,
                               settings=given)  # fmt: skip
        assert folder == tmp_path / "c/sst2-classifier"
        return Checkpoint.open(folder)

    first = imported()
    assert first.manifest.model == "someone/classifier"
    texts = data.load(TASKS["sst2"], "validation", rows_folder).texts[:8]
    np.testing.assert_allclose(
        ours(first, texts), transformers_logits(tmp_path / "m", texts)[:, [1, 0]], atol=1e-5
    )
    capsys.readouterr()
    assert imported().digest == first.digest and "was imported from" in capsys.readouterr().err
    assert imported(max_length=16).max_length == 16


def test_a_checkpoint_that_was_not_imported_is_not_replaced(
    model: PreTrainedModel, checkpoint: Checkpoint, rows_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(checkpoint.folder, tmp_path / "c/sst2-m")
    with pytest.raises(UsageError, match="exists already"):
        as_checkpoint(tmp_path / "m", out=tmp_path / "c", data_folder=rows_folder, settings=SST2)


def test_models_with_the_same_names_in_another_order_have_one_order_of_classes(
    encoders: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text(
        "text,label\n" + "".join(f"a film {n},{'ab'[n % 2]}\n" for n in range(8))
    )
    checkpoints = []
    for labels in (("a", "b"), ("b", "a")):
        folder = tmp_path / "".join(labels)
        model = classifier(encoders["bert"], folder, ("a", "b"))
        if labels == ("b", "a"):  # the same function, its outputs swapped
            with torch.no_grad():
                model.classifier.weight.copy_(model.classifier.weight.flip(0))
                model.classifier.bias.copy_(model.classifier.bias.flip(0))
            model.config.id2label, model.config.label2id = {0: "b", 1: "a"}, {"b": 0, "a": 1}
            model.save_pretrained(folder)
        checkpoints.append(
            import_model(folder, out=tmp_path / "c", data_folder=tmp_path / "rows.csv",
                         checkpoint_name=folder.name, settings=ImportSettings(task="films"))
        )  # fmt: skip
    assert [made.task.labels for made in checkpoints] == [("a", "b")] * 2
    assert checkpoints[0].manifest.metrics == checkpoints[1].manifest.metrics


def test_numbers_of_classes_are_those_of_the_models_outputs(
    encoders: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "rows.csv").write_text("text,label\n" + "".join(f"a film {n},{n % 2}\n" for n in range(8)))
    classifier(encoders["bert"], tmp_path / "m", ("good", "bad"))
    made = import_model(
        tmp_path / "m",
        out=tmp_path / "c",
        data_folder=tmp_path / "rows.csv",
        settings=ImportSettings(task="films"),
    )
    assert made.task.labels == ("good", "bad")
    source = data.locate(None, made.task, made.data)
    assert data.load(made.task, "validation", source).labels.tolist() == [0, 1] * 4


def test_numbers_that_outputs_count_otherwise_are_asked_about(
    encoders: dict[str, Path], tmp_path: Path
) -> None:
    """Rows with 1 to 3 stars of a model with 1 to 4: by position, one star would be two stars."""
    numbers = [1, 2, 3] * 4
    rows = "".join(f"a film {n},{number}\n" for n, number in enumerate(numbers))
    (tmp_path / "rows.csv").write_text("text,label\n" + rows)
    classifier(encoders["bert"], tmp_path / "m", ("1 star", "2 stars", "3 stars", "4 stars"))

    def imported(name: str, **settings: object) -> Checkpoint:
        return import_model(
            tmp_path / "m", out=tmp_path / name, data_folder=tmp_path / "rows.csv",
            settings=ImportSettings.of(task="films", **settings),
        )  # fmt: skip

    with pytest.raises(UsageError, match="is class 1 '1 star', or output 1, '2 stars'"):
        imported("asked")
    named = imported("named", labels=("1", "2", "3", "4"))
    assert named.task.labels == ("1", "2", "3", "4")
    labels = data.load(named.task, "validation", data.locate(None, named.task, named.data)).labels
    assert labels.tolist() == [number - 1 for number in numbers]


def test_a_number_to_predict_is_no_logit_of_a_class(encoders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\n" + "".join(f"a film {n},{n % 2}\n" for n in range(8)))
    classifier(encoders["bert"], tmp_path / "m", ("score",), problem_type="regression")
    with pytest.raises(UsageError, match="problem_type regression.* is not one for classification"):
        import_model(
            tmp_path / "m", out=tmp_path / "c", data_folder=tmp_path / "rows.csv",
            settings=ImportSettings(task="films"),
        )  # fmt: skip


def test_a_checkpoint_of_numbers_serves_two_classes_only_where_they_are_named(
    encoders: dict[str, Path], tmp_path: Path
) -> None:
    model, tokenizer = huggingface.pretrained(encoders["bert"], TASKS["stsb"])
    model.classifier.bias.data.fill_(0.05)
    save(model, tmp_path / "numbers", tokenizer=tokenizer, task=TASKS["stsb"])
    (tmp_path / "rows.csv").write_text("text,label\n" + "".join(f"a film {n},{n % 2}\n" for n in range(8)))
    task = Task("films", "classification", ("text",), ("0", "1"), ("accuracy",))
    fresh = huggingface.load(tmp_path / "numbers", task)
    assert fresh.fresh and fresh.model.classifier.out_features == 2

    def imported(**settings: Any) -> Checkpoint:
        return import_model(
            tmp_path / "numbers", out=tmp_path / "c", data_folder=tmp_path / "rows.csv",
            settings=ImportSettings(task="films", **settings),
        )  # fmt: skip

    with pytest.raises(UsageError, match="task 'stsb', regression.* is not one for classification"):
        imported()
    named = imported(labels=("1", "0"))  # a high number is class 0
    rows = data.load(named.task, "validation", tmp_path / "rows.csv")
    value = transformers_logits(tmp_path / "numbers", rows.texts)[:, 0]
    np.testing.assert_allclose(ours(named, rows.texts), np.stack([value, 0 * value], 1), atol=1e-5)
    assert named.manifest.metrics["accuracy"] == ((value <= 0) == rows.labels).mean()
    assert named.manifest.full_parameters == sum(part.numel() for part in load(named).parameters())
    assert not hasattr(load(named).config, "sentence_transformers")  # a function of a single output


def test_an_imported_lottery_ticket_stays_one(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    quick = FinetuneSettings.of(max_steps=2, max_length=16, lr=1e-3)
    ticket = finetune(
        "sst2", encoders["bert"], out=tmp_path, name="ticket", data_folder=rows_folder, settings=quick,
        reduce=lambda model: sparse.hold(model, sparse.smallest(sparse.matrices(model), 0.5)),
        facts=lambda model: {"sparsity": sparse.counts(model)},
    )  # fmt: skip
    imported = import_model(ticket.folder, out=tmp_path / "c", data_folder=rows_folder, settings=SST2)
    further = finetune("sst2", imported.folder, out=tmp_path, name="further", data_folder=rows_folder,
                       settings=quick)  # fmt: skip
    before, after = (load_file(made.folder / "model.safetensors") for made in (ticket, further))
    matrices = [name for name, value in before.items() if (value == 0).float().mean() > 0.2]
    assert len(matrices) >= 18
    for name in matrices:
        np.testing.assert_array_equal(before[name] == 0, after[name] == 0)
        assert not torch.equal(before[name], after[name])
    assert imported.manifest.parent == ticket.digest
    assert further.manifest.model == imported.manifest.model == ticket.manifest.model == "bert"
    assert further.manifest.sparsity == imported.manifest.sparsity == ticket.manifest.sparsity
