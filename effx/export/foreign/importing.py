"""Write an engine folder around a graph that was made elsewhere, after checking it on rows."""

from __future__ import annotations

import importlib
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from effx import data, engines, files, progress, scratch
from effx.artifacts import Checkpoint, Engine
from effx.encoding import Encoded, Encoder
from effx.engines import Session
from effx.errors import ArtifactError, DataError, GateError, MissingExtraError, UsageError, need, one_line
from effx.export import parity
from effx.export.foreign import interface as interfaces
from effx.export.foreign.facts import GraphFacts
from effx.export.foreign.location import ForeignFiles, locate
from effx.manifests import ArtifactReference, EngineInput, EngineManifest, ForeignGraph, Parity
from effx.specs.data import DataLocation
from effx.specs.families import position_limit
from effx.specs.foreign import ARRAYS, ForeignSettings
from effx.specs.runtime import GraphInterface, RuntimeSettings
from effx.specs.tasks import NAME, NAMING, Task
from effx.specs.variants import MIN_LENGTH

_GENERIC = ("model", "openvino_model", "onnx", "openvino")
"""Names of files and folders that say nothing about the model."""
_DEFAULT_LENGTH = 512
_LONGEST_NAME = 80
_LONGEST_INPUT = 1 << 20
_TRIAL_ROWS = 32
_SAME = 1e-3
"""Share of the logits' range by which a row's logits may change with padding, where nothing is quantized."""


@dataclass(frozen=True)
class _Source:
    """A graph that was made elsewhere, understood."""

    files: ForeignFiles
    facts: GraphFacts
    task: Task
    interface: GraphInterface
    runtime: RuntimeSettings
    variant: str
    max_length: int
    """Tokens of an example at most."""
    limit: int
    """Tokens that the graph accepts at most."""


def import_engine(
    model: str | Path,
    task: str,
    *,
    tokenizer: str | Path | None = None,
    data_folder: DataLocation = None,
    checkpoint: str | Path | None = None,
    settings: ForeignSettings | None = None,
    out: str | Path = "engines",
    name: str | None = None,
    overwrite: bool = False,
    keep_failed: bool = False,
) -> Engine:
    """Write an engine around a graph that was made elsewhere.

    Args:
        model: an .onnx or .xml file, or a folder with one and its config.json, as Optimum writes it.
        task: a name in :data:`effx.specs.tasks.TASKS`, or of the rows in ``data_folder``.
        tokenizer: the folder with tokenizer.json; None: that of the graph.
        data_folder: the task's rows; None: those of the checkpoint, or of the hub.
        checkpoint: an effx checkpoint whose answers the engine must give (parity gate); None: not compared.
        settings: what the graph and config.json do not say.
        out: the folder to write the engine to, as NAME.VARIANT.BACKEND.
        name: the engine's name; None: that of the graph's file or folder.
        overwrite: replace an engine of that name.
        keep_failed: keep an engine that failed its parity gate; its manifest says so.

    Raises:
        UsageError: it is unclear which input, output or label is which, or the graph does not fit the task.
        ArtifactError: a file is missing or damaged, or the runtime refuses the graph; its answers are not
            finite, or depend on padding.
        GateError: its answers differ from the checkpoint's.
    """
    settings = settings or ForeignSettings()
    compared = None if checkpoint is None else Checkpoint.open(checkpoint)
    if compared is not None:
        data_folder = data.locate(data_folder, compared.task, compared.data)
    source = _understood(Path(model), task, tokenizer, data_folder, compared, settings)
    target = Path(out) / f"{_name(source.files, name)}.{source.variant}.{source.files.backend}"
    measured = None
    with Engine.create(target, overwrite=overwrite) as draft:
        _copy(source, draft.folder)
        with engines.open_unchecked(draft.folder, source.files.backend, source.runtime) as session:
            _try(source, session, draft.folder, data_folder)
            if compared is not None:
                measured = _compared(source, session, draft.folder, compared, data_folder)
        if measured is not None and not measured.passed and not keep_failed:
            raise GateError(
                f"{target.name}: its answers are not those of {compared and compared.name}: logits differ by "
                f"{measured.max_abs_diff:.2g} at most, {measured.agreement}.",
                settings="keep_failed",
            )
        draft.manifest = _manifest(source, compared, measured, data_folder)
    progress.say(_summary(target.name, source, measured))
    return Engine.open(target)


def _understood(
    model: Path,
    task_name: str,
    tokenizer: str | Path | None,
    data_folder: DataLocation,
    checkpoint: Checkpoint | None,
    settings: ForeignSettings,
) -> _Source:
    located = locate(model, None if tokenizer is None else Path(tokenizer))
    engines.check_backend(located.backend)
    task = data.resolve(task_name, data_folder)
    if checkpoint is not None:
        if (checkpoint.task.name, checkpoint.task.labels) != (task.name, task.labels):
            raise UsageError(
                f"{checkpoint.name} is a checkpoint of task {checkpoint.task.name} with the labels "
                f"{', '.join(checkpoint.task.labels)}, not of {task.name} with {', '.join(task.labels)}.",
                settings=("checkpoint", "task"),
            )
        task = checkpoint.task
    facts = _read(located)
    interface = interfaces.interface(facts, task, located.config, settings)
    fixed = interfaces.fixed_length(facts, interface)
    limit = min(fixed or _position_limit(located), _LONGEST_INPUT)
    known = checkpoint.max_length if checkpoint else _DEFAULT_LENGTH
    longest = settings.max_length or min(limit, known)
    if not MIN_LENGTH <= longest <= limit:
        raise UsageError(
            f"max_length {longest}: expected {MIN_LENGTH} to {limit}, which the graph accepts at most.",
            settings="max_length",
        )
    precision = facts.arithmetic.precision
    _check_ids(located, facts, interface)
    return _Source(
        files=located,
        facts=facts,
        task=task,
        interface=interface,
        runtime=RuntimeSettings(
            files=(facts.files[0],),
            precision=precision,
            lengths=None if fixed is None else (fixed,),
            pad_id=_pad_id(located),
            interface=interface,
        ),
        variant=precision if fixed is None else f"{precision}+seq{fixed}",
        max_length=longest,
        limit=limit,
    )


def _read(located: ForeignFiles) -> GraphFacts:
    """Read a graph with the module of its format."""
    if located.backend == "onnxruntime":
        need("export", "onnx")
    modules = {"onnxruntime": "onnx_graph", "openvino": "openvino_graph"}
    module = importlib.import_module(f".{modules[located.backend]}", __package__)
    facts: GraphFacts = module.read(located.graph)
    return facts


def _name(located: ForeignFiles, name: str | None) -> str:
    """Return the first part of the engine's name: as given, or from the file or folder of the graph."""
    if name is None:
        folder = located.folder
        while folder.name in _GENERIC:
            folder = folder.parent
        stem = located.graph.stem
        name = files.safe_name(folder.name if stem in _GENERIC else f"{folder.name}-{stem}")
    if not NAME.fullmatch(name):
        raise UsageError(f"name '{name}': {NAMING}", settings="name")
    return name


def _position_limit(located: ForeignFiles) -> int:
    """Return how many tokens config.json and the tokenizer allow at most."""
    limits = [position_limit(located.config_json, _pad_id(located)), located.tokenizer_limit]
    return min((limit for limit in limits if limit is not None), default=_DEFAULT_LENGTH)


def _pad_id(located: ForeignFiles) -> int:
    """Return the token id of padding: that of config.json, or of the tokenizer."""
    if located.config.pad_token_id is not None:
        return located.config.pad_token_id
    tokenizer = _tokenizer(located)
    for token in ("[PAD]", "<pad>"):
        if (number := tokenizer.token_to_id(token)) is not None:
            return int(number)
    raise ArtifactError(
        f"{located.tokenizer}: neither config.json nor the tokenizer says which token is padding: add "
        "pad_token_id to config.json."
    )


def _tokenizer(located: ForeignFiles) -> Tokenizer:
    path = located.tokenizer / "tokenizer.json"
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises plain Exception
        raise ArtifactError(f"{path} cannot be read: {one_line(error)}.", settings="tokenizer") from error


def _check_ids(located: ForeignFiles, facts: GraphFacts, interface: GraphInterface) -> None:
    """Check that every token has a row of the embedding: OpenVINO does not report one that has none.

    Raises:
        UsageError: the tokenizer is not the model's.
    """
    name = next(name for name, array in interface.inputs.items() if array == "input_ids")
    rows = facts.embedding_rows.get(name, located.config.vocab_size)
    largest = max(_tokenizer(located).get_vocab(with_added_tokens=True).values(), default=0)
    if rows is not None and largest >= rows:
        raise UsageError(
            f"{located.tokenizer}: its tokens have ids up to {largest}, but the embedding of "
            f"{located.graph} has {rows} rows: it is not the tokenizer of this model.",
            settings="tokenizer",
        )


def _copy(source: _Source, folder: Path) -> None:
    """Copy graph, weights, tokenizer and config.json into the engine's folder."""
    for name in source.facts.files:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.files.graph.parent / name, target)
    for path in source.files.tokenizer_files:
        shutil.copyfile(path, folder / path.name)
    config = {**source.files.config_json, "pad_token_id": source.runtime.pad_id}
    if "_name_or_path" in config:  # often the folder of the machine that it was trained on
        config["_name_or_path"] = _model_name(source.files)
    files.write_json(folder / "config.json", config)


def _try(source: _Source, session: Session, folder: Path, data_folder: DataLocation) -> None:
    """Run rows, alone and padded, and a row of the longest length.

    Raises:
        UsageError: the shape of the answers does not fit the task.
        ArtifactError: the graph does not accept the rows; its answers are not finite, or depend on padding.
    """
    encoded = _rows(source, folder, data_folder)
    _check_types(source, encoded)
    order = np.argsort(encoded.lengths, kind="stable")
    shortest, longest = int(order[0]), int(order[-1])
    alone = _logits(source, session, encoded, [shortest])
    padded = _logits(source, session, encoded, [shortest, longest])
    if not (np.isfinite(alone).all() and np.isfinite(padded).all()):
        raise ArtifactError(f"{source.files.graph}: its logits are not finite.")
    if "attention_mask" not in source.interface.inputs.values():
        same_shape = alone.shape[1] == padded.shape[1]  # logits of tokens: more with padding
        change = float(np.max(np.abs(alone[0] - padded[0]))) if same_shape else np.inf
        if change > _SAME * float(np.ptp(padded) or 1.0):
            raise ArtifactError(
                f"{source.files.graph} has no input for the attention mask, and its answers depend on "
                f"padding (logits change by {change:.2g}): export it with the attention mask as an input."
            )
    _logits(source, session, parity.with_longest(encoded, source.max_length), [len(encoded)])


def _check_types(source: _Source, encoded: Encoded) -> None:
    """Raise :class:`UsageError` for token types that have no row of the embedding."""
    for name, array in source.interface.inputs.items():
        rows, largest = source.facts.embedding_rows.get(name), int(encoded.types.max(initial=0))
        if array == "token_type_ids" and rows is not None and largest >= rows:
            raise UsageError(
                f"{source.files.tokenizer}: pairs have the token type {largest}, but {source.files.graph} "
                f"has {rows}: it does not support pairs of texts.",
                settings="tokenizer",
            )


def _rows(source: _Source, folder: Path, data_folder: DataLocation) -> Encoded:
    """Return a few encoded validation rows of the task; random ids where there are none."""
    encoder = Encoder(folder, source.max_length, form=source.task.behavior.form)
    try:
        rows = data.load_to_measure(source.task, data_folder).limit(_TRIAL_ROWS)
    except (DataError, MissingExtraError):
        if data_folder is not None:
            raise
        vocabulary = len(_tokenizer(source.files).get_vocab(with_added_tokens=True))
        return parity.random_rows(
            _TRIAL_ROWS, vocabulary, encoder.max_length, encoder.pad_id, form=encoder.form
        )
    return encoder(rows.texts)


def _logits(source: _Source, session: Session, encoded: Encoded, rows: list[int]) -> np.ndarray:
    """Return the answers to rows, flat per row [rows, values].

    Raises:
        UsageError: their shape does not fit the task.
        ArtifactError: the runtime refuses the rows.
    """
    inputs = encoded.batch(rows)
    tokens = inputs["input_ids"].shape[1]
    try:
        out = session.infer(inputs)
    except Exception as error:  # runtimes' errors have no common base
        raise ArtifactError(
            f"{source.files.graph} does not accept {len(rows)} rows of {tokens} tokens "
            f"({one_line(error, 120)}): batch and length must be dynamic, and max_length at most what the "
            "model was trained with.",
            settings="max_length",
        ) from error
    kind = source.task.behavior
    for array, values in out.items():
        width = tokens if kind.of_tokens else source.task.outputs or values.shape[-1]
        expected = (len(rows), width)
        if values.shape != expected:
            output = source.interface.outputs[array]
            raise UsageError(
                f"output {output} gives an array of shape {list(values.shape)}, expected {list(expected)}: "
                f"it is not the {array} of task {source.task.name}.",
                settings="logits_output",
            )
    return np.concatenate([values.reshape(len(rows), -1) for values in out.values()], axis=1)


def _compared(
    source: _Source, session: Session, folder: Path, checkpoint: Checkpoint, data_folder: DataLocation
) -> Parity:
    """Measure the engine's parity with a checkpoint; needs PyTorch.

    Raises:
        UsageError: the tokenizer in the engine's ``folder`` encodes texts unlike the checkpoint's.
    """
    need("train", "torch", "transformers")
    from effx.export.source import ExportSource
    from effx.specs import variants

    variant = variants.parse(source.variant)
    with scratch.folder("import") as temporary:
        of_checkpoint = ExportSource(checkpoint, temporary, data_folder)
        types = "token_type_ids" in source.interface.inputs.values()
        if (text := of_checkpoint.encoded_differently(folder, variant, types=types)) is not None:
            raise UsageError(
                f"{source.files.tokenizer}: its tokenizer encodes texts unlike that of {checkpoint.name}, "
                f"such as '{one_line(text, 60)}': it is not the tokenizer of this checkpoint. Without a "
                "checkpoint to compare with, the graph can be imported with this tokenizer.",
                settings=("tokenizer", "checkpoint"),
            )
        reference = of_checkpoint.reference(variant)
        arithmetic = source.facts.arithmetic
        precision = parity.precision_of(arithmetic.scheme, arithmetic.precision)
        return parity.measure(reference, session, source.task, precision)


def _manifest(
    source: _Source, checkpoint: Checkpoint | None, measured: Parity | None, data_folder: DataLocation
) -> EngineManifest:
    """Return what engine.json says about the engine; what effx cannot know is None."""
    facts = source.facts
    built_from = ArtifactReference(name=source.files.folder.name, digest=files.sha256(source.files.graph))
    if checkpoint is not None:
        built_from = ArtifactReference(name=checkpoint.name, digest=checkpoint.digest)
    return EngineManifest(
        task=source.task.name,
        task_definition=source.task,
        variant=source.variant,
        precision=facts.arithmetic.precision,
        scheme=facts.arithmetic.scheme,
        backend=source.files.backend,
        device="cpu",
        checkpoint=built_from,
        made_elsewhere=ForeignGraph(producer=_producer(facts), weights_per_token=facts.weights_per_token),
        inputs=tuple(
            EngineInput(
                name=array, dtype="int64", min=(1, 1), opt=(1, source.max_length), max=(None, source.limit)
            )
            for array in ARRAYS
            if array != "token_type_ids" or array in source.interface.inputs.values()
        ),
        structure=None,
        parameters=facts.parameters,
        weight_remaining=None,
        model=_model_name(source.files),
        max_length=source.max_length,
        data=data.recorded(source.task, data_folder),
        parity=measured,
        runtime=source.runtime,
        versions=engines.versions(source.files.backend),
    )


def _producer(facts: GraphFacts) -> str:
    return one_line(facts.producer, _LONGEST_NAME) if facts.producer.strip() else "an unknown program"


def _model_name(located: ForeignFiles) -> str:
    """Return the name of the model that config.json names, not its folder on another machine."""
    original = located.config.original or ""
    if original and not original.startswith((".", "/", "~")) and "\\" not in original:
        return one_line(original.rsplit("/", 1)[-1], _LONGEST_NAME)
    return located.folder.name


def _summary(name: str, source: _Source, measured: Parity | None) -> str:
    """Return what was understood of the graph, one line."""
    inputs = ", ".join(f"{array} = {name}" for name, array in source.interface.inputs.items())
    outputs = ", ".join(f"{array} = {name}" for array, name in source.interface.outputs.items())
    parts = [
        f"{source.facts.arithmetic.scheme} by {_producer(source.facts)}",
        inputs,
        outputs,
    ]
    if source.task.labels:
        order = source.interface.label_order
        names = source.task.labels
        logits = names if order is None else [names[order.index(number)] for number in range(len(order))]
        parts.append(f"logits are {', '.join(logits)}")
    parts.append(f"{source.max_length} tokens at most")
    if measured is None:
        parts.append("not compared with a checkpoint")
    else:
        parts.append(
            f"logits differ by {measured.max_abs_diff:.2g} at most, "
            f"{measured.agreement} on {measured.compared_rows}"
        )
    return f"{name}: made elsewhere: {'; '.join(parts)}"
