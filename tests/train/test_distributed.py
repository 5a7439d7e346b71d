"""One fine-tuning in two processes, as torchrun starts them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from effx.artifacts import Checkpoint
from effx.errors import UsageError
from effx.specs.training import FinetuneSettings
from effx.train import exits, finetune
from tests.conftest import write_rows

ROOT = Path(__file__).parents[2]


def test_commands_of_one_process_refuse_several(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="runs in one process; use several processes for fine-tuning"):
        exits.train(checkpoint.folder, out=tmp_path)


@pytest.mark.slow
def test_two_processes_give_the_weights_of_one(encoders: dict[str, Path], tmp_path: Path) -> None:
    """With all rows in each step and no dropout, the mean gradient of two halves is that of all rows.

    A single step of Adam would not detect a gradient that is N times too large. Thirty steps do, because
    gradients are clipped.
    """
    import shutil

    import torch
    from safetensors.torch import load_file

    model = shutil.copytree(encoders["bert"], tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (model / "config.json").write_text(json.dumps(config))
    rows = [{"sentence": f"a {'good' if n % 2 else 'bad'} film {n}", "label": n % 2} for n in range(64)]
    for split in ("train", "validation"):
        write_rows(tmp_path / "data" / f"{split}.jsonl", rows)
    one = finetune(
        "sst2",
        model,
        out=tmp_path,
        name="one",
        data_folder=tmp_path / "data",
        settings=FinetuneSettings.of(
            epochs=30, batch_size=64, lr=1e-3, precision="fp32", max_length=32, warmup=0.0
        ),
    )
    code = f"""
from pathlib import Path
from effx.specs.training import FinetuneSettings
from effx.train import finetune
settings = FinetuneSettings.of(epochs=30, batch_size=32, lr=1e-3, precision="fp32", max_length=32, warmup=0.0)
trained = finetune("sst2", {str(model)!r}, out={str(tmp_path)!r}, name="two",
                data_folder={str(tmp_path / "data")!r}, settings=settings)
print(trained.digest)
"""
    (tmp_path / "train.py").write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*command, str(tmp_path / "train.py")], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    two = Checkpoint.open(tmp_path / "two")
    assert re.findall("[0-9a-f]{64}", done.stdout) == [two.digest] * 2  # both may write one line
    assert two.manifest.training.processes == 2
    assert two.manifest.training.steps == one.manifest.training.steps == 30
    assert two.manifest.training.loss == pytest.approx(one.manifest.training.loss, abs=1e-4)
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=1e-4, atol=2e-5)
