"""Masks for which nothing is trained, and the files of masks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from effx import files
from effx.errors import ArtifactError
from effx.models import pretrained, prune, sparse, structure
from effx.specs.tasks import TASKS
from effx.specs.training import FinetuneSettings
from effx.train.lottery import masks
from tests.models import tiny

SEVEN = FinetuneSettings.of(seed=7)


def found(
    kind: str, encoder: Path, percent: int, settings: FinetuneSettings = SEVEN
) -> dict[str, np.ndarray]:
    found = masks.untrained(kind, "sst2", encoder, percent, data_folder=None, settings=settings)
    return {name: mask.numpy() for name, mask in found.masks.items()}


def theta_0(encoder: Path) -> dict[str, np.ndarray]:
    """The prunable tensors of the saved encoder, by the names of the task model."""
    every = load_file(encoder / "model.safetensors")
    parts = (
        "query",
        "key",
        "value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
        "pooler.dense",
    )
    wanted = {
        key: value for key, value in every.items() if key.endswith(tuple(f"{part}.weight" for part in parts))
    }
    assert len(wanted) == 3 * 6 + 1
    return {f"bert.{key}": value for key, value in wanted.items()}


@pytest.mark.parametrize("percent", [10, 30, 70])
def test_one_shot_masks_are_those_of_a_ranking_of_the_saved_weights(
    encoders: dict[str, Path], percent: int
) -> None:
    result, weights = found("one-shot", encoders["bert"], percent), theta_0(encoders["bert"])
    assert result.keys() == weights.keys()
    sizes = np.concatenate([np.abs(weights[name]).ravel() for name in sorted(weights)])
    remaining = np.concatenate([result[name].ravel() for name in sorted(weights)])
    wanted = np.ones(len(sizes), dtype=bool)
    wanted[np.argsort(sizes, kind="stable")[: len(sizes) * percent // 100]] = False
    assert len(np.unique(sizes)) > 0.99 * len(sizes)  # so that ties decide almost nothing
    assert np.count_nonzero(remaining != wanted) <= 2
    assert np.count_nonzero(~remaining) == len(sizes) * percent // 100
    other = found("one-shot", encoders["bert"], percent, SEVEN.replace(seed=8))
    assert all(np.array_equal(other[name], result[name]) for name in result)


def test_random_masks_have_the_exact_number_of_zeros_and_depend_on_the_seed(
    encoders: dict[str, Path],
) -> None:
    total = sum(value.size for value in theta_0(encoders["bert"]).values())
    seven = {percent: found("random", encoders["bert"], percent) for percent in (10, 50, 90)}
    for percent, result in seven.items():
        assert sum(np.count_nonzero(~mask) for mask in result.values()) == total * percent // 100
        for name, mask in result.items():  # over all matrices alike; 5 standard deviations
            share = percent / 100
            assert abs(np.mean(~mask) - share) < 5 * np.sqrt(share * (1 - share) / mask.size), name
    for sparse_, dense in ((50, 10), (90, 50)):
        assert all(not (seven[sparse_][name] & ~seven[dense][name]).any() for name in seven[10])
    again = found("random", encoders["bert"], 50)
    other = found("random", encoders["bert"], 50, SEVEN.replace(seed=8))
    assert all(np.array_equal(again[name], seven[50][name]) for name in again)
    differing = sum(np.count_nonzero(other[name] != again[name]) for name in again)
    assert 0.45 < differing / total < 0.55  # as two independent draws


def test_masks_of_dropped_layers_are_not_drawn(encoders: dict[str, Path]) -> None:
    result = found("random", encoders["bert"], 30, FinetuneSettings.of(layers=2))
    assert len(result) == 2 * 6 + 1 and not any(".layer.2." in name for name in result)


def test_the_same_masks_give_the_same_bytes(tmp_path: Path) -> None:
    weights = {name: torch.randn(5, 3, generator=torch.Generator().manual_seed(0)) for name in ("b", "a")}
    given = sparse.drawn(weights, 0.4, 0)
    model = masks.MaskedModel("m", (0, 2))
    masks.write(tmp_path / "1.safetensors", masks.FoundMask(given, model))
    code = (  # another process: the order of a hash map is another one there
        "import sys, pathlib; from effx.train.lottery import masks\n"
        "one, two = map(pathlib.Path, sys.argv[1:])\n"
        "read = dict(reversed(masks.read(one).items()))\n"
        "masks.write(two, masks.FoundMask(read, masks.model_of(one)))"
    )
    paths = [tmp_path / "1.safetensors", tmp_path / "2.safetensors"]
    subprocess.run([sys.executable, "-c", code, *map(str, paths)], check=True)
    assert files.sha256(paths[0]) == files.sha256(paths[1])
    assert masks.model_of(paths[1]) == model
    read = masks.read(tmp_path / "1.safetensors")
    assert all(torch.equal(read[name], given[name]) for name in given)
    assert load_file(tmp_path / "1.safetensors")["a"].dtype == np.uint8


def test_damaged_and_foreign_masks_are_refused(encoders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "m").write_text("no mask")
    with pytest.raises(ArtifactError, match="cannot be read as a mask"):
        masks.read(tmp_path / "m")
    model, _ = pretrained(encoders["bert"], TASKS["sst2"])
    given = sparse.drawn(sparse.matrices(model), 0.4, 0)
    masks.check_fit(given, model)
    other, _ = pretrained(encoders["electra"], TASKS["sst2"])
    with pytest.raises(ArtifactError, match="it has no layer's weights. Use a mask of this model"):
        masks.check_fit(given, other)


def test_masks_of_other_layers_or_without_a_layer_are_refused(tmp_path: Path) -> None:
    bottom, top = tiny.model("bert"), tiny.model("bert")
    prune(bottom, layers=[0])
    prune(top, layers=[2])
    found = masks.FoundMask(
        sparse.smallest(sparse.matrices(bottom), 0.5), masks.MaskedModel.of("tiny", bottom)
    )
    masks.write(tmp_path / "m.safetensors", found)
    read, found_for = masks.read(tmp_path / "m.safetensors"), masks.model_of(tmp_path / "m.safetensors")
    assert found_for == masks.MaskedModel("tiny", (1, 2))
    masks.check_fit(read, bottom, found_for)
    with pytest.raises(ArtifactError, match="it is of the layers 2 3, and the model has 1 2. Use a mask of"):
        masks.check_fit(read, top, found_for)
    with pytest.raises(ArtifactError, match=r"it does not have bert.encoder.layer.2.attention.self.query"):
        masks.check_fit(read, tiny.model("bert"))


def test_masks_of_earlier_versions_are_read(tmp_path: Path) -> None:
    model = tiny.model("bert")
    given = sparse.drawn(sparse.matrices(model), 0.4, 0)
    save_file({name: mask.numpy().astype(np.uint8) for name, mask in given.items()}, tmp_path / "m")
    assert masks.model_of(tmp_path / "m") is None
    assert len(structure(model).layers) == 3
    masks.check_fit(masks.read(tmp_path / "m"), model, masks.model_of(tmp_path / "m"))


@pytest.mark.parametrize("text", ["1", "{}", '{"layers": ["a"], "name": "m"}', "no JSON"])
def test_damaged_metadata_is_refused(text: str, tmp_path: Path) -> None:
    save_file({"a": np.ones(2, dtype=np.uint8)}, tmp_path / "m", metadata={"effx": text})
    with pytest.raises(ArtifactError, match="cannot be read as a mask"):
        masks.model_of(tmp_path / "m")
