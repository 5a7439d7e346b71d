"""One-shot pruning to a measured cost: no training, no labels.

    rows -> moments of the inputs of W_O and W2 -> order of heads and neurons of each layer, and their errors
         -> one size of attention and FFN for each layer: least error under a budget of measured cost
         -> refitted weights

Errors of single layers do not say how much the model loses. A random search over their coefficients
therefore compares the predictions of whole pruned models with those of the checkpoint, on rows that the
weights were not fitted on (Kurtic et al. 2023, "ZipLM", section 3; Frantar and Alistarh 2022, "SPDY").
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel

from effx import data, files, progress, signals
from effx.artifacts import Checkpoint
from effx.costs import ONE_SHOT, Expense, united
from effx.encoding import Encoded, Encoder, smaller_batches
from effx.errors import UsageError
from effx.manifests import CheckpointFacts, OneShotRecord, TrainingRecord
from effx.models import checkpoints, evaluate, families, structure
from effx.models.families.removal import linear
from effx.models.heads import head_type
from effx.models.least_squares import LinearProblem, Removals
from effx.models.losses import distance_of
from effx.models.reconstruction import LayerProblems, problems, reconstruct
from effx.optimize import budget
from effx.optimize.cost_table import CostTable, neuron_sizes
from effx.specs.data import DataLocation
from effx.specs.optimize import OneShotSettings
from effx.specs.tasks import Task
from effx.specs.training import TrainingSettings
from effx.structure import Structure
from effx.train import output
from effx.train import rows as row_numbers
from effx.train.loop import running_meter
from effx.train.rows import validation_facts

_BATCH = 64
_SCORED_SHARE = 0.25
"""Of the rows: those that whole models are compared on; the weights are fitted on the others."""
_STEP, _FACTOR = 16, 0.9
"""Sizes of FFNs that are considered: about a geometric sequence of multiples."""


@dataclass(frozen=True)
class _Option:
    """What may remain of a layer."""

    heads: int
    neurons: int
    removed: bool = False


@dataclass
class _Layer:
    """A layer: the order in which it loses heads and neurons, and weights for what remains."""

    index: int
    """In the unreduced model."""
    problems: LayerProblems
    heads: Removals | None
    neurons: Removals | None
    _fitted: dict[tuple[str, int], tuple[np.ndarray, np.ndarray | None]] = field(default_factory=dict)

    @classmethod
    def of(cls, index: int, problems: LayerProblems) -> _Layer:
        heads, neurons = (
            None if problem is None else problem.removals() for problem in (problems.heads, problems.neurons)
        )
        return cls(index, problems, heads, neurons)

    def error(self, part: str, count: int) -> float:
        """Return the squared error of a part's output with ``count`` heads or neurons, 1 with none."""
        problem, removals = self._part(part)
        if removals is None or problem is None:
            return 0.0
        nothing = problem.removed_error if part == "neurons" else float(removals.errors[-1])
        if count == 0:
            return 1.0
        return float(removals.errors[len(removals.order) - count]) / max(nothing, 1e-30)

    def fitted(self, part: str, count: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Return weights [outputs, inputs] with zeros where heads or neurons are missing, and the bias."""
        if (part, count) not in self._fitted:
            problem, removals = self._part(part)
            assert problem is not None and removals is not None
            self._fitted[part, count] = problem.spread(removals.remaining(count))
        return self._fitted[part, count]

    @property
    def size(self) -> _Option:
        """The heads and neurons that it has."""
        heads, neurons = (0 if part is None else len(part.order) for part in (self.heads, self.neurons))
        return _Option(heads, neurons)

    def forget(self) -> None:
        """Free the weights of sizes that were tried."""
        self._fitted.clear()

    def _part(self, part: str) -> tuple[LinearProblem | None, Removals | None]:
        return (self.problems.heads, self.heads) if part == "heads" else (self.problems.neurons, self.neurons)


def prune(
    checkpoint: str | Path,
    table: CostTable,
    settings: OneShotSettings,
    *,
    out: str | Path = "checkpoints",
    name: str | None = None,
    data_folder: DataLocation = None,
    overwrite: bool = False,
    strict: bool = True,
    training: TrainingSettings | None = None,
) -> Checkpoint:
    """Prune a checkpoint to a fraction of its cost, and write ``out/name``.

    Args:
        checkpoint: the one whose layers the table has, or another one of the same encoder; it may have lost
            layers, heads and neurons before.
        table: costs of heads and neurons.
        settings: how much faster, and how it is searched.
        out: folder of the checkpoint's folder.
        name: the new checkpoint's name; default: that of ``checkpoint`` with ``-pruned2x``.
        data_folder: file or folder of the rows; default: where the checkpoint's came from.
        overwrite: replace a checkpoint of that name.
        strict: refuse a table that did not pass its check, and a speed-up that is there already; False: where
            the engine is measured anyway. Then latency is reduced if the table has no energy that adds up.
        training: its ``limit``, ``share`` and ``seed`` say which training rows may be used; None: those that
            the checkpoint was trained on, or all if that is not known.

    Raises:
        UsageError: the checkpoint has exits, a token schedule or zeros of a lottery ticket; the table is of
            another encoder or did not pass its check; or the speed-up cannot be reached or is there already.
        ArtifactError: the checkpoint is missing or damaged.
        DataError: the rows do not fit the task.
    """
    opened = Checkpoint.open(checkpoint)
    reduced = opened.manifest.structure
    if reduced.exits or reduced.prunes_tokens:
        raise UsageError(
            f"{opened.name} has exits or a token schedule, which depend on its weights: prune the checkpoint "
            "before them, then train exits or tokens on the result.", settings="checkpoint",
        )  # fmt: skip
    if (sparsity := opened.manifest.sparsity) is not None and not sparsity.is_dense:
        raise UsageError(
            f"{opened.name} is a lottery ticket: refitting the remaining weights would fill its zeros. Prune "
            "the full model instead.", settings="checkpoint",
        )  # fmt: skip
    folder = output.new_folder(out, name or f"{opened.name}-pruned{settings.speedup:g}x", overwrite)
    model, task = checkpoints.load(opened), opened.task
    check_table(table, model, opened, settings.objective, strict=strict)
    if settings.objective == "energy" and not strict and not table.passed_for("energy"):
        progress.say(f"{folder.name}: the cost table has no energy that adds up; milliseconds choose")
        settings = settings.model_copy(update={"objective": "latency"})
    location = data.locate(data_folder, task, opened.data)
    train = data.load(task, "train", location)
    validation = data.load(task, "validation", location)
    seen = row_numbers.weights_saw(train, opened.manifest.training, task.behavior.group)
    if training is not None:
        able = row_numbers.chosen(train, training)
    else:
        able = np.arange(len(train)) if seen is None else seen
    chosen = np.random.default_rng((settings.seed, 9)).permutation(able)[: settings.rows]
    scored, fitted = np.split(chosen, [max(1, int(_SCORED_SHARE * len(chosen)))])
    if not len(fitted):
        raise UsageError(f"expected at least 2 training rows, got {len(chosen)}.", settings="rows")
    encoder = Encoder(opened.folder, opened.max_length, form=task.behavior.form)

    progress.say(f"{folder.name}: measure layers on {len(fitted)} rows")
    with running_meter() as meter:
        layers = _layers(model, batches(model, encoder(train.take(np.sort(fitted)).texts)))
        comparison = _Comparison(model, task, encoder(train.take(np.sort(scored)).texts), layers)
        found, options = _search(model, table, layers, comparison, settings, folder.name, strict=strict)
        target = _target(structure(model), layers, options)
        for layer in layers:
            layer.forget()
        reconstruct(model, target, [layer.problems for layer in layers])
    expense = Expense(
        kind=ONE_SHOT, checkpoint=opened.digest, name=opened.name,
        settings=files.json_digest(
            {**settings.to_json(), "costs": [table.backend, table.scheme, table.workload]}
        ),
        cost=meter.cost(None),
    )  # fmt: skip
    predictions = evaluate.predictions(model, encoder(validation.texts, validation.documents), task)
    before = opened.manifest
    facts: CheckpointFacts = {
        "model": before.model,
        "seed": before.seed,
        "training": _record(before.training, chosen, seen),
        "parent": opened.digest,
        "expenses": united(opened.expenses(), [expense]),
        "max_length": opened.max_length,
        "data": data.recorded(task, location),
        "layer_reductions": before.layer_reductions,
        "one_shot": OneShotRecord(
            settings=settings.to_json(),
            rows=len(chosen),
            predicted_s=table.seconds.of_structure(target),
            unreduced_s=table.unreduced_s,
            predicted_j=None if table.joules is None else table.joules.of_structure(target),
            unreduced_j=None if table.joules is None else table.joules.unreduced,
            backend=table.backend,
            scheme=table.scheme,
            workload=table.workload,
            host=str(table.host.get("id")),
            distance=found.score,
        ),
        **validation_facts(validation, task.score(validation.labels, predictions)),
    }
    return checkpoints.save(
        model, folder, tokenizer=checkpoints.tokenizer(opened.folder), task=task, overwrite=overwrite, **facts
    )


def _record(training: TrainingRecord, used: np.ndarray, seen: np.ndarray | None) -> TrainingRecord:
    """Return how a checkpoint was trained, without the digest of its rows if the weights now know others.

    Args:
        training: of the checkpoint before.
        used: numbers of the rows that the weights were fitted on and the structure chosen on.
        seen: see :func:`effx.train.rows.weights_saw`.
    """
    if seen is not None and np.isin(used, seen).all():
        return training
    return training.model_copy(update={"rows_digest": None})


def check_table(
    table: CostTable, model: PreTrainedModel, checkpoint: Checkpoint, objective: str = "latency", *,
    strict: bool = True,
) -> None:  # fmt: skip
    """Raise :class:`UsageError` if a table is not of this encoder, or its costs do not add up.

    Args:
        table: the costs.
        model: the encoder.
        checkpoint: the one of the model.
        objective: what is reduced.
        strict: whether its costs have to be there and add up.
    """
    family, layers = families.of(model), structure(model).layers
    heads, neurons = (max(sizes) for sizes in zip(
        *((len(layer.heads), layer.intermediate) for layer in layers), strict=True
    ))  # fmt: skip
    most = (table.heads[-1].size, table.neurons[-1].size)
    if len(layers) > table.layers or heads > most[0] or neurons > most[1]:
        raise UsageError(
            f"the cost table is of {table.layers} layers of {most[0]} heads and {most[1]} neurons; "
            f"{checkpoint.name} has {len(layers)} layers of up to {heads} heads and {neurons} neurons.",
            settings="costs",
        )
    if checkpoint.manifest.model != table.model or family.head_size(model) != table.head_size:
        raise UsageError(
            f"the cost table is of the encoder {table.model}, not of {checkpoint.manifest.model}.",
            settings="costs",
        )
    if not strict:
        return
    table.costs(objective)
    if not table.passed_for(objective):
        error = table.error_of(objective)
        raise UsageError(
            f"the cost table did not pass its check: the median error of {objective} is "
            f"{'unknown' if error is None else format(error, '.0%')}, the limit {table.limit:.0%}. "
            "Measure it again while the machine is idle.", settings="costs",
        )  # fmt: skip


def batches(model: PreTrainedModel, encoded: Encoded) -> Iterator[dict[str, torch.Tensor]]:
    """Yield batches of sequences of similar length, without labels."""
    names = checkpoints.input_names(model)
    order = np.argsort(-encoded.lengths, kind="stable")
    for part in smaller_batches(order, encoded.lengths, _BATCH):
        batch = encoded.batch(part)
        yield {name: torch.from_numpy(batch[name]) for name in names}


def _layers(model: PreTrainedModel, inputs: Iterator[dict[str, torch.Tensor]]) -> list[_Layer]:
    measured = problems(model, inputs)
    shapes = structure(model).layers
    with progress.bar("order heads and neurons", len(shapes)) as advance:
        result = []
        for shape, problem in zip(shapes, measured, strict=True):
            signals.check()
            result.append(_Layer.of(shape.index, problem))
            advance(1, "")
    return result


def _search(
    model: PreTrainedModel,
    table: CostTable,
    layers: Sequence[_Layer],
    comparison: _Comparison,
    settings: OneShotSettings,
    name: str,
    *,
    strict: bool,
) -> tuple[budget.Candidate, list[_Option]]:
    """Return the best candidate, and what remains of each layer."""
    costs_of = table.costs(settings.objective)
    grid = neuron_sizes(table.neurons[-1].size, step=_STEP, factor=_FACTOR)
    options, costs, terms = [], [], []
    for layer in layers:
        most = layer.size
        sizes = [*(size for size in grid if size < most.neurons), most.neurons]
        heads = range(most.heads + 1)
        of_layer = [_Option(h, m) for h, m in itertools.product(heads, sizes)]
        if _may_go(model, layer.index):  # instead of a layer without heads and FFN, which costs more
            of_layer = [_Option(0, 0, removed=True), *(o for o in of_layer if o != _Option(0, 0))]
        options.append(of_layer)
        costs.append(
            np.array([0.0 if o.removed else costs_of.of_layer(o.heads, o.neurons) for o in of_layer])
        )
        errors = {("heads", h): layer.error("heads", h) for h in heads}
        errors |= {("neurons", m): layer.error("neurons", m) for m in sizes}
        terms.append(np.array([[errors["heads", o.heads], errors["neurons", o.neurons]] for o in of_layer]))
    rest = costs_of.of_layers([])
    limit = costs_of.unreduced / settings.speedup - rest
    now = rest + sum(costs_of.of_layer(layer.size.heads, layer.size.neurons) for layer in layers)
    if strict and now <= limit + rest:
        raise UsageError(
            f"{name}: the checkpoint {_saves(settings.objective, costs_of.unreduced / now)} already, by this "
            "table.",
            settings="speedup",
        )
    with progress.bar(f"{name}: compare structures", settings.candidates) as advance:

        def score(chosen: tuple[int, ...]) -> float:
            signals.check()
            found = comparison.distance([options[i][n] for i, n in enumerate(chosen)])
            advance(1, f"distance {found:.4f}")
            return found

        try:
            best = budget.search(
                costs, terms, limit, score, candidates=settings.candidates, seed=settings.seed
            )
        except UsageError as error:
            least = costs_of.unreduced / (rest + sum(float(each.min()) for each in costs))
            raise UsageError(
                f"speedup {settings.speedup:g} cannot be reached: the most is {least:.3g}, by this table.",
                settings="speedup",
            ) from error  # fmt: skip
    return best, [options[number][option] for number, option in enumerate(best.options)]


def _saves(objective: str, factor: float) -> str:
    return (
        f"is {factor:.3g} times as fast"
        if objective == "latency"
        else f"needs {1 / factor:.3g} of the joules"
    )


def _may_go(model: PreTrainedModel, index: int) -> bool:
    """Whether a layer can be removed while all others remain, so that any set of such layers can."""
    whole = structure(model)
    if len(whole.layers) < 2 or index == whole.layers[0].index:
        return False
    positions = [position for position, layer in enumerate(whole.layers) if layer.index != index]
    try:
        families.of(model).check_layers(positions)
    except UsageError:
        return False
    return True


def _target(whole: Structure, layers: Sequence[_Layer], options: Sequence[_Option]) -> Structure:
    """Return the structure that the chosen options leave."""
    target = whole
    for layer, option in zip(layers, options, strict=True):
        if option.removed:
            continue
        shape = whole.layers[whole.position(layer.index)]
        if layer.heads is not None:
            left = {shape.heads[position] for position in layer.heads.remaining(option.heads)}
            target = target.without(heads={layer.index: [head for head in shape.heads if head not in left]})
        if layer.neurons is None:
            continue
        if option.neurons == 0:
            target = target.without(ffns=[layer.index])
        else:
            kept = {shape.neuron_indices[position] for position in layer.neurons.remaining(option.neurons)}
            out = [neuron for neuron in shape.neuron_indices if neuron not in kept]
            target = target.without(neurons={layer.index: out})
    gone = [layer.index for layer, option in zip(layers, options, strict=True) if option.removed]
    return target.without(layers=gone)


class _Comparison:
    """Compares the predictions of pruned models with those of the whole one, on some rows."""

    def __init__(
        self, model: PreTrainedModel, task: Task, encoded: Encoded, layers: Sequence[_Layer]
    ) -> None:
        self._model = copy.deepcopy(model).eval()
        self._layers, self._distance, self._head = layers, distance_of(task), head_type(task)
        self._batches = [*batches(model, encoded)]
        self._expected = [self._logits(batch) for batch in self._batches]
        family = families.of(model)
        paths = {"heads": family.context_path, "neurons": family.ffn_output_path}
        parts = {number: {"heads": layer.heads, "neurons": layer.neurons}
                 for number, layer in enumerate(layers)}  # fmt: skip
        self._modules = {
            (part, number): linear(module, path)
            for part, path in paths.items()
            for number, module in enumerate(family.layers(self._model))
            if parts[number][part] is not None  # otherwise it was removed before
        }
        self._whole = {
            place: (module.weight.data, None if module.bias is None else module.bias.data)
            for place, module in self._modules.items()
        }

    @torch.inference_mode()
    def _logits(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        return self._head.logits(self._model(**batch)).float()

    def distance(self, options: Sequence[_Option]) -> float:
        """Return the mean distance of the predictions with these options, 0 for all heads and neurons."""
        with self._pruned(options):
            total = rows = 0.0
            for batch, expected in zip(self._batches, self._expected, strict=True):
                mask = batch["attention_mask"].bool()
                found = self._logits(batch)
                total += len(mask) * float(self._distance(found, expected, None, mask, 1.0))
                rows += len(mask)
        return max(total / rows, 0.0)  # rounding may give -1e-8 for equal predictions

    @contextmanager
    def _pruned(self, options: Sequence[_Option]) -> Iterator[None]:
        """Compute as if only the options were left, for the time of the ``with`` block."""
        handles = []
        modules = families.of(self._model).layers(self._model)
        try:
            for number, option in enumerate(options):
                if option.removed:
                    # before the hook of mean pooling, which would otherwise be undone for the last layer
                    handles.append(modules[number].register_forward_hook(_identity, prepend=True))
                    continue
                self._set("heads", number, option.heads)
                self._set("neurons", number, option.neurons)
            yield
        finally:
            for handle in handles:
                handle.remove()
            for place, (weight, bias) in self._whole.items():
                module = self._modules[place]
                module.weight.data = weight
                if bias is not None:
                    module.bias.data = bias

    def _set(self, part: str, number: int, count: int) -> None:
        layer = self._layers[number]
        removals = layer.heads if part == "heads" else layer.neurons
        if removals is None or count == len(removals.order):
            return
        module = self._modules[part, number]
        if part == "neurons" and count == 0:  # a removed FFN leaves no bias
            module.weight.data = torch.zeros_like(module.weight)
            if module.bias is not None:
                module.bias.data = torch.zeros_like(module.bias)
            return
        weight, bias = layer.fitted(part, count)
        module.weight.data = torch.from_numpy(weight).to(module.weight)
        if bias is not None:
            module.bias.data = torch.from_numpy(bias).to(module.bias)


def _identity(_: nn.Module, inputs: tuple[torch.Tensor, ...], output: Any) -> Any:
    """Return a layer's input as its output."""
    return (inputs[0], *output[1:]) if isinstance(output, tuple) else inputs[0]
