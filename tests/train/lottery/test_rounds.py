"""Where the fine-tunings of a search start, compared with independent trainings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

from effx.artifacts import Checkpoint
from effx.models import load, sparse
from effx.specs.training import FinetuneSettings
from effx.train import finetune
from effx.train.lottery import rounds, start
from effx.train.lottery.rounds import MaskOrigin, first_steps, train_round

RUN = FinetuneSettings.of(
    epochs=2, limit=96, batch_size=16, max_length=32, lr=1e-3, seed=3, precision="fp32"
)  # 12 steps
STEP = 5
IMP = MaskOrigin("imp", "task", "0" * 64)


def weights(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    return load_file(checkpoint.folder / "model.safetensors")


def masks_of(checkpoint: Checkpoint, share: float) -> dict[str, torch.Tensor]:
    return sparse.smallest(sparse.matrices(load(checkpoint)), share)


class Watch(TrainerCallback):  # type: ignore[misc]
    """Copies the weights after a step of a complete run, and from then on masks them, if there are masks."""

    def __init__(self, step: int, masks: dict[str, torch.Tensor] | None = None) -> None:
        self._step, self._masks = step, masks
        self.weights: dict[str, torch.Tensor] = {}

    def on_step_end(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **_: Any
    ) -> None:
        if state.global_step != self._step:
            return
        self.weights = {name: value.detach().clone() for name, value in model.named_parameters()}
        for name, mask in (self._masks or {}).items():
            value = model.get_parameter(name)
            value.data[~mask] = 0.0
            for part in ("exp_avg", "exp_avg_sq", "m", "u"):
                if part in optimizer.state[value]:
                    optimizer.state[value][part][~mask] = 0.0
            value.register_hook(lambda gradient, mask=mask: gradient.masked_fill(~mask, 0.0))


@pytest.mark.parametrize("optimizer", ["adamw", "adamax"])
def test_a_rewound_round_goes_on_from_a_step_of_the_first_fine_tuning(
    optimizer: str,
    encoders: dict[str, Path],
    rows_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = RUN.replace(optimizer=optimizer)
    shared: dict[str, Any] = {"data_folder": rows_folder, "settings": settings}
    watch = Watch(STEP)
    full = finetune("sst2", encoders["bert"], out=tmp_path, name="full", callbacks=[watch], **shared)
    state = tmp_path / "state"
    first_steps("sst2", encoders["bert"], STEP, state, **shared)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "state"]
    masks, started = masks_of(full, 0.4), {}

    class Recording(rounds.MaskedState):
        def on_train_begin(self, *arguments: Any, model: Any = None, **options: Any) -> None:
            super().on_train_begin(*arguments, model=model, **options)
            started.update({name: value.detach().clone() for name, value in model.named_parameters()})

    monkeypatch.setattr(rounds, "MaskedState", Recording)
    rewound = train_round(
        "sst2", encoders["bert"], masks, MaskOrigin("imp", "task", "0" * 64, rewind=STEP), out=tmp_path,
        name="rewound", state=state, **shared,
    )  # fmt: skip
    assert started.keys() == watch.weights.keys()  # the task head among them
    for name, value in started.items():
        assert torch.equal(value, watch.weights[name] * masks.get(name, torch.tensor(1.0))), name
    assert rewound.manifest.training.steps == full.manifest.training.steps == 12
    assert rewound.manifest.sparsity.rewind == STEP
    independent = finetune(
        "sst2", encoders["bert"], out=tmp_path, name="independent", callbacks=[Watch(STEP, masks)], **shared
    )
    assert all(torch.equal(value, weights(independent)[name]) for name, value in weights(rewound).items())
    for name, value in sparse.matrices(load(rewound)).items():
        assert torch.equal(value != 0, masks[name])
    everything = {name: torch.ones_like(mask) for name, mask in masks.items()}
    unmasked = train_round(
        "sst2", encoders["bert"], everything, IMP, out=tmp_path, name="unmasked", state=state, **shared
    )
    assert all(torch.equal(value, weights(full)[name]) for name, value in weights(unmasked).items())


def test_a_standard_round_goes_on_from_the_trained_weights(
    encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    full = finetune(
        "sst2", encoders["bert"], out=tmp_path, name="full", data_folder=rows_folder, settings=RUN
    )
    masks = masks_of(full, 0.3)
    still = RUN.replace(lr=1e-30, max_steps=1)  # the saved weights are those before training
    shared: dict[str, Any] = {"out": tmp_path, "data_folder": rows_folder, "settings": still}
    origin = MaskOrigin("standard", "task", "0" * 64)
    standard = train_round("sst2", full.folder, masks, origin, name="standard", parent=full.digest, **shared)
    before, after = weights(full), weights(standard)
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert torch.equal(after[name], value * masks.get(name, torch.tensor(1.0))), name
    assert standard.manifest.parent == full.digest and standard.manifest.model == full.manifest.model
    imp = weights(train_round("sst2", encoders["bert"], masks, IMP, name="imp", **shared))
    assert all(not torch.equal(after[name], imp[name]) for name in masks)


@pytest.mark.parametrize("init", ["fresh", "shuffled"])
def test_other_weights_are_masked_and_recorded(
    init: str, encoders: dict[str, Path], rows_folder: Path, tmp_path: Path
) -> None:
    still = RUN.replace(lr=1e-30, max_steps=1)
    shared: dict[str, Any] = {"data_folder": rows_folder, "settings": still}
    plain = finetune("sst2", encoders["bert"], out=tmp_path, name="plain", **shared)
    masks = masks_of(plain, 0.5)
    origin = MaskOrigin("imp", "task", "0" * 64, init)
    ticket = train_round("sst2", encoders["bert"], masks, origin, out=tmp_path, name=init, **shared)
    record = ticket.manifest.sparsity
    assert (record.kind, record.init, record.rewind) == ("imp", init, None)
    assert record.zeros == sum(int((~mask).sum()) for mask in masks.values())
    before, after = weights(plain), weights(ticket)
    embeddings = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(before[embeddings], after[embeddings]) is (init == "shuffled")
    for name, mask in masks.items():
        assert torch.equal(after[name] != 0, mask)
        if init == "fresh":
            assert not torch.equal(after[name], before[name] * mask)
            continue
        layer = re.search(r"layer\.(\d+)\.", name)
        source = name
        if layer is not None:
            number = start.new_order(3, RUN.training.seed)[int(layer[1])]
            source = name.replace(layer[0], f"layer.{number}.")
        assert torch.equal(after[name], before[source] * mask)
