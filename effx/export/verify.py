"""Engines against their checkpoints, at any later time and on any machine."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from effx import engines
from effx.artifacts import Checkpoint, Engine
from effx.errors import ArtifactError
from effx.export import parity
from effx.export.parity import Parity
from effx.export.source import Source
from effx.specs import variants


def verify(
    folders: Sequence[Path], checkpoints: str | Path = "checkpoints", *, data_folder: str | Path | None = None
) -> list[tuple[Engine, Parity]]:
    """Measure the parity of engines again.

    Args:
        folders: engines, or folders of them.
        checkpoints: where their checkpoints are.
        data_folder: rows to compare on; default: where the checkpoint's came from.

    Raises:
        ArtifactError: an engine is missing or damaged, or its very checkpoint is not there.
    """
    found = []
    known = {path.name: path for path in Checkpoint.find(checkpoints)}
    for folder in Engine.find_all([Path(path) for path in folders]):
        engine = Engine.open(folder)
        wanted = engine.manifest["checkpoint"]
        if wanted["name"] not in known:
            raise ArtifactError(
                f"{engine.folder}: its checkpoint {wanted['name']} is not in {checkpoints}. "
                "Pass --checkpoints."
            )
        checkpoint = Checkpoint.open(known[wanted["name"]])
        if checkpoint.digest != wanted["digest"]:
            raise ArtifactError(
                f"{engine.folder} was built from another {wanted['name']} than the one in {checkpoints}. "
                f"Build it again with: effx export {checkpoint.folder}"
            )
        variant = variants.parse(engine.variant)
        with tempfile.TemporaryDirectory(prefix="effx-verify-") as scratch:
            source = Source(checkpoint, Path(scratch), data_folder)
            reference = source.reference(variant)
            with engines.open(engine) as session:
                measured = parity.measure(reference, session, checkpoint.task, variant.precision)
        found.append((engine, measured))
    return found
