"""Compare engines with their checkpoints again, later or on another machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from effx import engines, scratch
from effx.artifacts import Checkpoint, Engine
from effx.errors import ArtifactError, one_line
from effx.export import parity
from effx.export.shared_encoder import OneHead
from effx.export.source import ExportSource
from effx.manifests import Parity
from effx.specs import variants
from effx.specs.data import DataLocation
from effx.specs.tasks import Task


def verify(
    folders: Sequence[Path],
    checkpoints: str | Path = "checkpoints",
    *,
    data_folder: DataLocation = None,
    trust: bool = False,
) -> list[tuple[Engine, Task, Parity]]:
    """Measure the parity of engines again, of each task whose head they have.

    Args:
        folders: engines, or folders of them.
        checkpoints: the folder of their checkpoints.
        data_folder: file or folder of the rows to compare on; default: that of the checkpoint's rows.
        trust: see :func:`effx.engines.open`.

    Raises:
        ArtifactError: an engine is missing or damaged, its tokenizer encodes texts unlike the checkpoint's,
            or the checkpoint that it was built from is missing.
    """
    verified = []
    known = {path.name: path for path in Checkpoint.find(checkpoints)}
    for path in Engine.find_all([Path(path) for path in folders]):
        engine = Engine.open(path)
        built_from = engine.manifest.checkpoint
        if engine.manifest.made_elsewhere is not None and engine.manifest.parity is None:
            raise ArtifactError(
                f"{engine.folder} was not built by effx and has no checkpoint to compare with: import its "
                "graph again and name the checkpoint.",
                settings="checkpoint",
            )
        if built_from.name not in known:
            raise ArtifactError(
                f"{engine.folder}: its checkpoint {built_from.name} is not in {checkpoints}.",
                settings="checkpoints",
            )
        checkpoint = Checkpoint.open(known[built_from.name])
        if checkpoint.digest != built_from.digest:
            raise ArtifactError(
                f"{engine.folder} was built from another {built_from.name} than the one in {checkpoints}. "
                f"Build it again with: effx export {checkpoint.folder}"
            )
        variant = variants.parse(engine.variant)
        with scratch.folder("verify") as folder, scratch.as_tmpdir(folder):
            source = ExportSource(checkpoint, folder, data_folder)
            types = "token_type_ids" in engine.input_names
            if (text := source.encoded_differently(engine.folder, variant, types=types)) is not None:
                raise ArtifactError(
                    f"{engine.folder}: its tokenizer encodes texts unlike that of {checkpoint.name}, such as "
                    f"'{one_line(text, 60)}'. Build it again with the checkpoint's tokenizer."
                )
            reference = source.reference(variant)
            with engines.open(engine, trust=trust) as session:
                precision = parity.precision_of(engine.manifest.scheme, engine.manifest.precision)
                shape = engine.manifest.runtime.static_shape
                measured = parity.measure(reference, session, checkpoint.task, precision, shape)
                verified.append((engine, checkpoint.task, measured))
                for head in engine.manifest.other_heads:
                    other = source.others[head.output]
                    if other.checkpoint.digest != head.checkpoint.digest:
                        raise ArtifactError(
                            f"{engine.folder} was built with another {head.checkpoint.name} than the one "
                            f"beside {checkpoint.folder}. Build it again with: effx export "
                            f"{checkpoint.folder}"
                        )
                    answers = OneHead(session, other.checkpoint.task.name)
                    measured = parity.measure(
                        other.reference(variant), answers, other.checkpoint.task, precision, shape
                    )
                    verified.append((engine, other.checkpoint.task, measured))
    return verified
