"""In which forms models are built: the fastest, and one that is nearly as fast."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from effx import data
from effx.artifacts import Checkpoint
from effx.encoding import Encoder
from effx.optimize.check import Checked, check
from effx.optimize.forms import NEARLY, EngineForm, kept, of_costs
from effx.specs.optimize import OptimizeSettings


def form(variant: str, backend: str) -> EngineForm:
    return EngineForm(variant=variant, backend=backend)


ORT, OPENVINO = form("int8", "onnxruntime"), form("int8", "openvino")
BUCKETS = form("buckets8+int8", "openvino")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({ORT: 2.0, OPENVINO: 3.0, BUCKETS: 1.9}, (BUCKETS, ORT)),
        ({ORT: 2.0, OPENVINO: 1.8, BUCKETS: 1.9}, (OPENVINO, BUCKETS)),  # two at most
        ({ORT: 2.0, OPENVINO: 2.0 * NEARLY + 0.01}, (ORT,)),
        ({OPENVINO: 2.0, ORT: 2.0}, (ORT, OPENVINO)),  # equal times: in the order of the backends
        ({OPENVINO: 1.0}, (OPENVINO,)),
    ],
)
def test_the_fastest_form_and_one_that_is_nearly_as_fast_are_kept(
    seconds: dict[EngineForm, float], expected: tuple[EngineForm, ...]
) -> None:
    assert kept(seconds).forms == expected


@pytest.mark.parametrize(
    ("variant", "typical", "expected"),
    [("int8", 20, "int8"), ("seq64+int8", 20, "seq64+int8"), ("buckets8+int8", 20, "seq24+int8"),
     ("int8+buckets8+threads1", 24, "seq24+int8+threads1"), ("buckets24+int8", 3, "seq24+int8"),
     ("buckets+fp32", 21, "seq21+fp32")],
)  # fmt: skip
def test_a_table_measures_one_length_instead_of_several(variant: str, typical: int, expected: str) -> None:
    assert of_costs(variant, typical) == expected


def test_fixed_lengths_are_a_form_where_they_help(checkpoint: Checkpoint, tmp_path: Path) -> None:
    pytest.importorskip("openvino")

    def checked(workload: str = "single", backends: tuple[str, ...] = (), **values: object) -> Checked:
        settings = OptimizeSettings.of(**{"max_drop": 0.3, "also": ("none",), **values})
        return check(checkpoint.folder, settings, workload, None, backends, "none", tmp_path)

    # the checkpoint reads up to 66 tokens: lengths are multiples of 8
    assert checked().forms == checked(objective="cpu_time").forms == (ORT, BUCKETS)
    assert checked(objective="memory").forms == checked(objective="size").forms == (ORT, OPENVINO)
    assert checked(backends=("openvino",), variant="fp32", also=("exits", "threads1")).forms == (
        form("buckets8+fp32", "openvino"),
    )  # fmt: skip
    assert checked("4x16").forms == checked("offline").forms == (ORT, OPENVINO)
    assert checked(backends=("onnxruntime",)).forms == (ORT,)
    assert checked(also=("seq16",)).forms == (ORT, OPENVINO)
    assert checked(variant="seq16+int8").forms == (
        form("seq16+int8", "onnxruntime"), form("seq16+int8", "openvino"),
    )  # fmt: skip


def test_the_typical_length_is_that_of_the_mean_row(checkpoint: Checkpoint, tmp_path: Path) -> None:
    settings = OptimizeSettings.of(max_drop=0.3, also=("none",))
    found = check(checkpoint.folder, settings, "single", None, ("onnxruntime",), "none", tmp_path)
    rows = data.load(checkpoint.task, "validation", data.locate(None, checkpoint.task, checkpoint.data))
    lengths = Encoder(checkpoint.folder, checkpoint.max_length)(rows.texts).lengths
    assert len(lengths) <= 1000 and found.typical_length == np.ceil(lengths.mean())
