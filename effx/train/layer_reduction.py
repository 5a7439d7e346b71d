"""Drop layers of an encoder before it is trained; :mod:`effx.specs.layer_reduction` has the strategies."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel

from effx import progress
from effx.data import Rows
from effx.encoding import Encoder
from effx.errors import UsageError
from effx.manifests import LayerReductionRecord
from effx.models import evaluate, families, huggingface, prune, structure
from effx.specs import layer_reduction
from effx.specs.families import LAST_LAYERS_ONLY
from effx.specs.training import FinetuneSettings
from effx.train import distributed

MEASURED_ROWS = 256
"""Training rows at most on which the contribution of layers is measured."""


def check(model: PreTrainedModel, settings: FinetuneSettings) -> None:
    """Check that a model has enough layers, and that layers of its family can be dropped as the settings say.

    Raises:
        UsageError: it has fewer layers, or of its family only the last ones can be dropped.
    """
    strategy, keep = settings.layer_strategy, settings.layers
    if strategy is None or keep is None:
        return
    layers = len(structure(model).layers)
    if keep > layers:
        raise UsageError(f"layers {keep}: the model has {layers} layers.", settings="layers")
    if strategy == layer_reduction.CONTRIBUTION:
        if model.config.model_type in LAST_LAYERS_ONLY and keep < layers:
            families.of(model).check_layers(range(1, layers))
    else:
        families.of(model).check_layers(layer_reduction.remaining(strategy, layers, keep))


def reduce_layers(
    name: str,
    model: PreTrainedModel,
    settings: FinetuneSettings,
    encoder: Encoder,
    rows: Rows,
    kept: Sequence[int] | None = None,
) -> LayerReductionRecord | None:
    """Drop layers of ``model``, in place, as ``layers`` and ``drop_layers`` of the settings say.

    Contribution is measured in fp32 on the processor, so that all processes that train together drop the same
    layers, on at most :data:`MEASURED_ROWS` of the rows. Which of the rows these are does not depend on the
    seed; where a share is trained on, the seed decides the rows themselves, so that seeds may drop different
    layers. Rows outside the share are not measured: it stands for all rows that there are.

    Args:
        name: of the model, for messages.
        model: a task model, as it is before training.
        settings: how many layers to keep, and which to drop.
        encoder: of the model.
        rows: training rows, after limit and share; labels are not used.
        kept: the layers to keep by their index in the unreduced model, where they were chosen before.

    Returns:
        What was dropped; None: nothing, as the settings keep all layers.

    Raises:
        UsageError: as :func:`check`, the settings keep other layers than ``kept``, or rows have ids that the
            model does not know.
    """
    check(model, settings)
    strategy, keep = settings.layer_strategy, settings.layers
    if strategy is None or keep is None:
        return None
    before = [layer.index for layer in structure(model).layers]
    similarity, measured = None, None
    if kept is None and strategy == layer_reduction.CONTRIBUTION:
        sample = rows.take(rows.subset(MEASURED_ROWS))
        encoded = encoder(sample.texts)
        huggingface.check_encoded(name, encoded, model)
        similarity = tuple(map(float, evaluate.first_token_similarity(model, encoded)))
        measured = len(sample)
    if kept is not None and strategy == layer_reduction.CONTRIBUTION:
        chosen = list(kept)  # measured before; only their number is known
        fits = len(chosen) == keep and set(chosen) <= set(before)
    else:
        positions = layer_reduction.remaining(strategy, len(before), keep, similarity)
        chosen = [before[position] for position in positions]
        fits = kept is None or list(kept) == chosen
    if not fits:
        raise UsageError(
            f"layers {keep}, drop_layers {strategy}: these settings keep other layers than those of the "
            "checkpoint whose structures were scored.", settings=("layers", "drop_layers"),
        )  # fmt: skip
    if chosen == before:
        return None
    prune(model, layers=[index for index in before if index not in chosen])
    record = LayerReductionRecord(
        strategy=strategy, before=tuple(before), kept=tuple(chosen), similarity=similarity, rows=measured
    )
    if similarity is not None and distributed.is_first():
        progress.say(described(record))
    return record


def reduce_by_position(model: PreTrainedModel, settings: FinetuneSettings) -> None:
    """Drop layers of ``model``, in place, by a strategy that needs no rows.

    Raises:
        UsageError: as :func:`check`.
    """
    check(model, settings)
    strategy, keep = settings.layer_strategy, settings.layers
    if strategy is None or keep is None:
        return
    before = [layer.index for layer in structure(model).layers]
    kept = [before[position] for position in layer_reduction.remaining(strategy, len(before), keep)]
    prune(model, layers=[index for index in before if index not in kept])


def described(record: LayerReductionRecord) -> str:
    """Return which layers were dropped, and by which similarities, in one line; layers are counted from 1."""
    assert record.similarity is not None
    of_layers = zip(record.before, record.similarity, strict=True)
    values = ", ".join(f"{index + 1}: {value:.3f}" for index, value in of_layers)
    dropped = ", ".join(str(index + 1) for index in record.before if index not in record.kept) or "none"
    return (
        f"layers dropped by contribution: {dropped} (cosine of the first token before and after each layer, "
        f"mean of {record.rows} rows: {values})"
    )
