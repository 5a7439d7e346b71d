"""OpenVINO models: which shapes are compiled, and that all of them give PyTorch's answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from effx import engines
from effx.artifacts import Checkpoint
from effx.export import export
from effx.models import checkpoints

pytest.importorskip("openvino")

LENGTHS = (3, 16, 40, 16, 3)


def queries(lengths: tuple[int, ...]) -> list[dict[str, np.ndarray]]:
    """Single rows, then all of them in one batch."""
    rng, width = np.random.default_rng(0), max(lengths)
    mask = (np.arange(width) < np.array(lengths)[:, None]).astype(np.int64)
    ids = rng.integers(5, 60, mask.shape) * mask
    whole = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    single = [
        {name: values[row : row + 1, :length] for name, values in whole.items()}
        for row, length in enumerate(lengths)
    ]
    return [*single, whole]


@pytest.mark.parametrize(
    ("variant", "lengths", "compiled"),
    [
        ("fp32", LENGTHS, {(-1, -1)}),
        ("seq16", (3, 16, 9), {(1, 16), (-1, 16)}),
        ("buckets", LENGTHS, {(1, 16), (1, 64), (-1, 64)}),
    ],
)
def test_single_rows_of_fixed_lengths_have_models_without_dynamic_dimensions(
    variant: str,
    lengths: tuple[int, ...],
    compiled: set[tuple[int, int]],
    checkpoint: Checkpoint,
    tmp_path: Path,
) -> None:
    engine = export(checkpoint.folder, variant, "openvino", tmp_path)
    model = checkpoints.load(checkpoint)
    with engines.open(engine) as session:
        for query in queries(lengths):
            arrays = {name: torch.from_numpy(query[name]) for name in checkpoints.input_names(model)}
            with torch.inference_mode():
                expected = model(**arrays).logits.numpy()
            np.testing.assert_allclose(session.infer(query)["logits"], expected, atol=1e-4)
        graph = session
        while hasattr(graph, "_parts"):  # padding around a session around the graph
            (graph,) = graph._parts
        assert {*graph._compiled} == compiled
