"""Which files of a model's folder decide what is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from effx import model_files
from effx.models.huggingface.folder import open_folder
from effx.recipe.graph.digests import Digests
from effx.specs.training import FinetuneSettings
from effx.train import finetune
from tests.models.huggingface.saved import classifier


def write(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_text("{}")
    return folder


def index(*shards: str) -> str:
    return json.dumps({"weight_map": {f"tensor{number}": shard for number, shard in enumerate(shards)}})


def modules(*folders: str) -> str:
    return json.dumps([{"type": f"x.Module{number}", "path": path} for number, path in enumerate(folders)])


@pytest.mark.parametrize(
    ("contents", "others", "expected"),
    [
        ({}, ("config.json", "model.safetensors", "vocab.txt", "optimizer.bin", "README.md"),
         {"config.json", "model.safetensors", "vocab.txt"}),
        ({}, ("config.json", "model.safetensors", "pytorch_model.bin"), {"config.json", "model.safetensors"}),
        ({}, ("config.json", "pytorch_model.bin", "training_args.bin"), {"config.json", "pytorch_model.bin"}),
        ({"pytorch_model.bin.index.json": index("b.bin", "a.bin", "b.bin")}, ("a.bin", "b.bin", "c.bin"),
         {"pytorch_model.bin.index.json", "a.bin", "b.bin"}),
        ({"pytorch_model.bin.index.json": index("a.bin", "b.bin")}, ("a.bin",),
         {"pytorch_model.bin.index.json"}),
        ({"pytorch_model.bin.index.json": "[]"}, (), {"pytorch_model.bin.index.json"}),
        ({"modules.json": modules("", "1_Mean")},
         ("model.safetensors", "config.json", "1_Mean/config.json", "2_Other/config.json"),
         {"modules.json", "model.safetensors", "config.json", "1_Mean/config.json"}),
        ({}, ("model.safetensors", "1_Pooling/config.json"), {"model.safetensors", "1_Pooling/config.json"}),
        ({"modules.json": modules("..")}, ("model.safetensors",), {"modules.json", "model.safetensors"}),
        ({}, ("model.safetensors", "modeling_own.py"), {"model.safetensors", "modeling_own.py"}),
    ],
)  # fmt: skip
def test_the_files_that_decide(
    contents: dict[str, str], others: tuple[str, ...], expected: set[str], tmp_path: Path
) -> None:
    for name, text in contents.items():
        (tmp_path / name).write_text(text)
    write(tmp_path, *others)
    found = model_files.deciding(tmp_path)
    assert found == sorted(found)
    assert {path.relative_to(tmp_path).as_posix() for path in found} == expected


@pytest.mark.parametrize("shards", ["..", "", "a/b.bin"])
def test_shards_outside_of_the_folder_are_refused(shards: str, tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin.index.json").write_text(index(shards))
    with pytest.raises(model_files.ModelFilesError, match="expected files of its folder"):
        model_files.weights(tmp_path)


def test_other_pickled_weights_are_another_model(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    """Models that differ in pytorch_model.bin alone train to other checkpoints, and have other digests."""
    digests, scores = [], []
    for seed in (1, 2):
        folder = tmp_path / "model"
        classifier(encoders["bert"], folder, ("negative", "positive"), seed=seed)
        (folder / "model.safetensors").unlink()
        torch.save(
            classifier(encoders["bert"], tmp_path / "twin", ("negative", "positive"), seed=seed).state_dict(),
            folder / "pytorch_model.bin",
        )
        assert {*open_folder(str(folder)).weights} <= {*model_files.deciding(folder)}
        digests.append(Digests(tmp_path / "digests.json").model(str(folder)))
        trained = finetune(
            "sst2", folder, out=tmp_path, name=f"trained{seed}", data_folder=rows_folder,
            settings=FinetuneSettings.of(max_steps=1, limit=16, max_length=32),
        )  # fmt: skip
        scores.append(trained.digest)
    assert scores[0] != scores[1]
    assert digests[0] != digests[1]
    assert {name for name in digests[0] if digests[0][name] != digests[1][name]} == {"pytorch_model.bin"}
