"""Question-answering heads: start and end logits for every token."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from effx import data, engines
from effx.artifacts import Checkpoint
from effx.encoding import Encoder
from effx.errors import UsageError
from effx.export import export, parity
from effx.models import add_ramps, checkpoints, load, pretrained, prune, save
from effx.specs.data import DataRecord
from effx.specs.tasks import TASKS
from effx.train import exits, tokens
from tests.conftest import CONFIGS, SHARED_DATA, write_rows

SQUAD = TASKS["squad"]


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("questions")
    rng = np.random.default_rng(0)
    words = ["film", "plot", "acting", "is", "the", "a", "dull", "warm", "not"]
    for split, n in (("train", 40), ("validation", 30)):
        rows: list[dict[str, object]] = []
        for _ in range(n):
            context = " ".join(rng.choice(words, int(rng.integers(3, 30))))
            answer = {"text": [context.split()[0]], "answer_start": [0]}
            rows.append({"question": "what is dull", "context": context, "answers": answer})
        write_rows(folder / f"{split}.jsonl", rows)
    return folder


def answering(
    name: str, encoders: dict[str, Path], out_folder: Path, rows: DataRecord | None = None
) -> Checkpoint:
    torch.manual_seed(0)
    model, tokenizer = pretrained(encoders[name], SQUAD)
    prune(model, heads={0: [0]}, ffns=[1])
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return save(model, out_folder / "ck" / name, tokenizer=tokenizer, task=SQUAD, max_length=48,
                data=rows)  # fmt: skip


USUAL = ("bert", "roberta", "distilbert")


@pytest.mark.parametrize(
    "name",
    [
        name if name in USUAL else pytest.param(name, marks=pytest.mark.slow)
        for name in CONFIGS
        if name != "nomic_bert"  # of which transformers has no such model
    ],
)
def test_spans_match_pytorch_in_every_family(
    name: str, encoders: dict[str, Path], questions: Path, tmp_path: Path
) -> None:
    trained = answering(name, encoders, tmp_path, data.recorded(SQUAD, questions))
    model = load(trained)
    engine = export(trained.folder, "fp32", out=tmp_path / "engines")
    assert engine.manifest.parity.inputs == "task"
    assert engine.manifest.parity.examples == 31
    rows = parity.random_rows(9, 200, 40, 0, form="windows")
    inputs = rows.batch(range(9))
    with engines.open(engine) as session, torch.inference_mode():
        outputs = session.infer(inputs)
        tensors = {key: torch.from_numpy(inputs[key]) for key in checkpoints.input_names(model)}
        expected = model(**tensors)
    real = inputs["attention_mask"].astype(bool)
    for name in ("start_logits", "end_logits"):
        assert outputs[name].shape == real.shape
        np.testing.assert_allclose(outputs[name][real], getattr(expected, name).numpy()[real], atol=1e-5)


@pytest.mark.parametrize(
    ("variant", "backend"),
    [("buckets", "onnxruntime"), ("seq32", "torch"), ("int8", "onnxruntime"), ("int8+buckets", "openvino")],
)
def test_span_variants_agree_with_the_checkpoint(
    variant: str, backend: str, encoders: dict[str, Path], questions: Path, tmp_path: Path
) -> None:
    trained = answering("bert", encoders, tmp_path, data.recorded(SQUAD, questions))
    engine = export(
        trained.folder, variant, backend, tmp_path / "engines", calibration_rows=16, keep_failed=True
    )
    assert engine.manifest.parity.label_agreement > 0.7
    encoded = Encoder(engine.folder, engine.max_length, form="windows")(
        [("what is dull", "the plot is dull")] * 2
    )
    with engines.open(engine) as session:
        out = session.infer(encoded.batch([0, 1]))
    assert out["start_logits"].shape == out["end_logits"].shape == (2, int(encoded.lengths[0]))


def test_shifted_spans_fail_the_parity_gate() -> None:
    rows = parity.random_rows(40, 200, 20, 0, form="windows")
    logits = np.random.default_rng(0).normal(size=(len(rows.ids), 2)).astype(np.float32)
    reference = parity.Reference(rows, logits, None, None, "random")
    same = parity.compare(reference, logits + np.float32(1e-5), None, SQUAD, "fp32")
    assert same.passed and same.label_agreement == 1 and same.examples == 40
    moved = parity.compare(reference, np.roll(logits, 1, axis=0), None, SQUAD, "int8")
    assert not moved.passed and moved.label_agreement < 0.5


def test_a_tenth_of_other_answers_is_accepted_of_int8_alone() -> None:
    rows = parity.random_rows(100, 200, 20, 0, form="windows")
    logits = np.random.default_rng(0).normal(size=(len(rows.ids), 2)).astype(np.float32)
    reference = parity.Reference(rows, logits, None, None, "random", discrete=True)
    changed = logits.copy()
    changed[: rows.offsets[12]] = np.roll(logits[: rows.offsets[12]], 1, axis=0)
    for precision, passed in (("int8", True), ("fp8", True), ("bf16", False)):
        compared = parity.compare(reference, changed, None, SQUAD, precision)
        assert 0.85 < compared.label_agreement < 0.93 and compared.passed is passed
    changed[: rows.offsets[30]] = np.roll(logits[: rows.offsets[30]], 1, axis=0)
    assert not parity.compare(reference, changed, None, SQUAD, "int8").passed


def test_unsupported_uses_of_question_answering_are_refused(
    encoders: dict[str, Path], questions: Path, tmp_path: Path
) -> None:
    trained = answering("bert", encoders, tmp_path, data.recorded(SQUAD, questions))
    with pytest.raises(UsageError, match="this model has logits for every token"):
        add_ramps(load(trained))
    with pytest.raises(UsageError, match="an answer needs the logits of every token"):
        exits.train(trained.folder, out=tmp_path)
    with pytest.raises(UsageError, match="drops tokens that may begin or end the answer"):
        tokens.train(trained.folder, out=tmp_path)
    with pytest.raises(UsageError, match="needs another kind of head"):
        pretrained(trained.folder, TASKS["sst2"])


def test_squad_is_read_in_its_published_layout() -> None:
    from effx import data

    if not (SHARED_DATA / "squad").is_dir():
        pytest.skip(f"{SHARED_DATA / 'squad'} is not here")
    rows = data.load(SQUAD, "validation", SHARED_DATA / "squad")
    assert len(rows) > 1000
    question, context = rows.texts[0]
    assert question.endswith("?") and len(context) > len(question)
    assert all(answer in context for answer in rows.labels[0].texts)
    assert len(data.load(SQUAD, "train", SHARED_DATA / "squad")) == 10860
