"""Engines as folders in the layout of the Hugging Face hub, which other libraries load with their defaults.

    DIR/NAME/config.json, tokenizer.json, ...     as transformers saves them
    DIR/NAME/onnx/model.onnx                      fp32; model_fp16.onnx, model_bf16.onnx, model_quantized.onnx
    DIR/NAME/openvino_model.xml, .bin             fp32; openvino_model_qint8_quantized.xml: int8
    DIR/NAME/modules.json, 1_Pooling/config.json  of embeddings, for sentence-transformers
    DIR/NAME/README.md                            the model card: files, labels, parity

optimum-intel 2.2 reads the OpenVINO files of the folder itself (``_find_files_matching_pattern``), and
sentence-transformers those of the folder before those of a subfolder ``openvino``
(``backend_should_export``). The other libraries read the ONNX files of the subfolder. NAME is the
checkpoint's, with the parts of the variant besides its precision, as ``mine-tokens``. Work of the host
around a graph (padding to fixed lengths, early exit in segments) is not part of the layout.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from effx import files, progress
from effx.artifacts import Engine
from effx.errors import EffxError, UsageError
from effx.formatting import with_unit
from effx.specs import sentence_transformers, variants

_ONNX = {"fp32": "model", "fp16": "model_fp16", "bf16": "model_bf16", "int8": "model_quantized"}
_OPENVINO = {"fp32": "openvino_model", "int8": "openvino_model_qint8_quantized"}
_LAYOUT = {"onnxruntime": ("onnx", _ONNX), "openvino": ("", _OPENVINO)}
"""Backend -> subfolder of its files, and their names by precision."""
_SUFFIXES = (".onnx", ".onnx.data", ".xml", ".bin")
_CARD = "README.md"
_TOKENIZER_CONFIG = "tokenizer_config.json"
_DEFAULT_PRECISION = "fp32"


def write_all(engines: Iterable[Engine], root: str | Path) -> list[EffxError]:
    """Write engines into folders of ``root``, one for each checkpoint and reduction.

    A folder that was written before is replaced.

    Returns:
        The errors of engines and folders that could not be written.
    """
    failures: list[EffxError] = []
    folders: dict[str, list[Engine]] = {}
    for engine in engines:
        if reason := refusal(engine):
            failures.append(UsageError(f"{engine.name}: {reason}."))
        else:
            folders.setdefault(name_of(engine), []).append(engine)
    for name, together in folders.items():
        try:
            write(together, Path(root) / name)
        except EffxError as error:
            failures.append(error)
    return failures


def refusal(engine: Engine) -> str | None:
    """Return why an engine cannot be in the layout, or None."""
    if engine.backend not in _LAYOUT:
        return f"the hub's layout has files of {' and '.join(_LAYOUT)}, not of {engine.backend}"
    if len(engine.runtime.files) > 1:
        return "the hub's layout has one graph, and early exit in segments has several: export exit-if"
    if engine.runtime.lengths:
        return "the libraries that read the hub's layout do not pad to lengths: leave out seqN and buckets"
    if engine.manifest.other_heads:
        return "the libraries that read the hub's layout use one task head: leave out multi"
    if engine.stride is not None:
        return "the libraries that read the hub's layout divide contexts their own way: leave out strideN"
    _, names = _LAYOUT[engine.backend]
    if engine.manifest.precision not in names:
        return (
            f"{engine.backend} has no {engine.manifest.precision} files: it converts the fp32 file when "
            "it loads it"
        )
    return None


def name_of(engine: Engine) -> str:
    """Return the name of an engine's folder."""
    parts = [
        part for part in variants.normalised(engine.variant).split("+") if part not in variants.PRECISIONS
    ]
    return "-".join([engine.manifest.checkpoint.name, *parts])


def write(engines: Sequence[Engine], folder: Path) -> Path:
    """Write engines of one checkpoint into a folder, replacing one that this function wrote.

    Raises:
        UsageError: the folder exists and has other files, or cannot be written to; two engines have the same
            file; or they are of different checkpoints.
    """
    if len({engine.manifest.checkpoint.digest for engine in engines}) > 1:
        raise UsageError(f"{folder}: the engines are of different checkpoints with the same name.")
    first = engines[0]
    shared = [name for name in first.manifest.files if _is_shared(name)]
    sentence_files = _sentence_files(first)
    expected = {*shared, _CARD, *_names_in_folder(), *(name.partition("/")[0] for name in sentence_files)}
    if folder.is_dir() and (others := sorted({path.name for path in folder.iterdir()} - expected)):
        raise UsageError(f"{folder} has files of something else ({others[0]}): choose another folder.")
    taken: dict[str, Engine] = {}
    with files.new_folder(folder, replace=True) as temporary:
        for name in shared:
            shutil.copyfile(first.folder / name, temporary / name)
        _set_max_length(temporary / _TOKENIZER_CONFIG, first.max_length)
        for name, value in sentence_files.items():
            (temporary / name).parent.mkdir(exist_ok=True)
            files.write_json(temporary / name, value)
        for engine in engines:
            taken[_copy(engine, temporary)] = engine
        (temporary / _CARD).write_text(_card(folder.name, taken), encoding="utf-8")
    progress.say(f"{folder}: {', '.join(taken)}")
    if not any(engine.manifest.precision == _DEFAULT_PRECISION for engine in engines):
        progress.say(f"{folder}: most libraries load the fp32 file by default, and it is not there: "
                     f"name the file when you load it, or export fp32 too")  # fmt: skip
    return folder


def _names_in_folder() -> Iterator[str]:
    """Yield the names that graphs can have in a folder: subfolders, or files of the folder itself."""
    for subfolder, stems in _LAYOUT.values():
        if subfolder:
            yield subfolder
        else:
            yield from (f"{stem}{suffix}" for stem in stems.values() for suffix in _SUFFIXES)


def _is_shared(name: str) -> bool:
    return "/" not in name and not name.endswith(_SUFFIXES)


def _copy(engine: Engine, folder: Path) -> str:
    """Copy an engine's graph and weights; return the graph's path in the folder.

    The file of the weights of an ONNX graph of more than 2 GB keeps its name, which the graph states.
    """
    (source,) = engine.runtime.files
    subfolder, names = _LAYOUT[engine.backend]
    stem = names[engine.manifest.precision]
    (folder / subfolder).mkdir(exist_ok=True)
    for name in engine.manifest.files:
        if not _is_shared(name):
            is_graph_or_bin = Path(name).stem == Path(source).stem and not name.endswith(".data")
            target = folder / subfolder / (f"{stem}{Path(name).suffix}" if is_graph_or_bin else name)
            if target.exists():
                raise UsageError(
                    f"{engine.name}: another engine would also be written to {target.name}: export only "
                    "one of them."
                )
            shutil.copyfile(engine.folder / name, target)
    return str(Path(subfolder, f"{stem}{Path(source).suffix}"))


def _sentence_files(engine: Engine) -> dict[str, Any]:
    """Return file name -> JSON for sentence-transformers; empty: the engine does not embed texts."""
    structure, encoder = engine.manifest.structure, engine.manifest.encoder
    if engine.task.behavior.head != "embedding" or structure is None or encoder is None:
        return {}
    return sentence_transformers.contents(structure.head_pooling, encoder.width, engine.max_length)


def _set_max_length(path: Path, max_length: int) -> None:
    """Write the engine's maximum length where tokenizers of other libraries read it."""
    config = json.loads(path.read_bytes()) if path.is_file() else {}
    config["model_max_length"] = max_length
    files.write_json(path, config)


def _card(name: str, engines: dict[str, Engine]) -> str:
    """Return the model card."""
    first = next(iter(engines.values()))
    manifest = first.manifest
    pipeline = first.task.behavior.pipeline
    lines = [
        "---",
        "tags: [onnx, effx]",
        *([f"pipeline_tag: {pipeline}"] if pipeline else []),
        "---",
        f"# {name}",
        "",
        f"Checkpoint {manifest.checkpoint.name}, task {manifest.task}, at most {first.max_length} tokens.",
        "",
        "| file | precision | size | agreement |",
        "|---|---|---|---|",
    ]
    for path, engine in engines.items():
        agreement = "not compared"
        if (compared := engine.manifest.parity) is not None:
            share = "below 0%" if compared.label_agreement < 0 else f"{compared.label_agreement:.2%}"
            agreement = f"{share} on {compared.compared_rows}"
        lines.append(
            f"| {path} | {engine.manifest.scheme} | {with_unit(engine.size_bytes, 'B')} | {agreement} |"
        )
    lines += ["", f"Agreement of predictions: {first.task.behavior.agreement_words}."]
    if any(e.backend == "onnxruntime" and e.manifest.precision == "int8" for e in engines.values()):
        lines += ["", "The int8 ONNX file is for ONNX Runtime. OpenVINO is fast with its own int8 file: "
                  f"{_OPENVINO['int8']}.xml."]  # fmt: skip
    lines.append("")
    return "\n".join(lines)
