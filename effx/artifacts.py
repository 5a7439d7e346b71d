"""Checkpoints and engines on disk: the only code that knows their file names and schemas.

    checkpoints/NAME/effx.json      weights + structure      Checkpoint
    engines/NAME/engine.json        a built graph            Engine

A manifest lists the SHA-256 of every other file and a digest of itself, so a truncated, swapped or
edited artefact does not open. An engine's manifest has the digest of its checkpoint, a result that of
its engine: provenance is a chain of digests.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from effx import files
from effx.errors import ArtifactError, UsageError
from effx.specs.runtime import RuntimeSettings
from effx.specs.tasks import Task


@dataclass(frozen=True)
class _Artifact:
    """A folder with a manifest that has been checked against the folder's files."""

    folder: Path
    manifest: Mapping[str, Any]

    article: ClassVar[str]
    kind: ClassVar[str]
    manifest_name: ClassVar[str]
    schema: ClassVar[int]
    required: ClassVar[tuple[str, ...]]
    made_by: ClassVar[str]

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Read and check an artefact.

        Raises:
            ArtifactError: the folder or its manifest is missing, unreadable or of another
                schema, a file is missing or differs from its digest, or a file name points outside
                the folder.
        """
        folder = Path(folder)
        path = folder / cls.manifest_name
        if not path.is_file():
            raise ArtifactError(
                f"{folder} is not {cls.article} {cls.kind}: {path.name} is missing. {cls.made_by}"
            )
        try:
            manifest = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{path} cannot be read ({error}). {cls.made_by}") from error
        if not isinstance(manifest, dict) or manifest.get("schema") != cls.schema:
            schema = manifest.get("schema") if isinstance(manifest, dict) else "none"
            raise ArtifactError(f"{path}: expected schema {cls.schema}, got {schema}. {cls.made_by}")
        if absent := [key for key in (*cls.required, "files", "digest") if key not in manifest]:
            raise ArtifactError(f"{path}: {', '.join(absent)} missing. {cls.made_by}")
        if manifest["digest"] != _manifest_digest(manifest):
            raise ArtifactError(f"{path} was changed after it was written. {cls.made_by}")
        for name, digest in manifest["files"].items():
            file = files.inside(folder, name)
            if not file.is_file():
                raise ArtifactError(f"{folder}: {name} is missing. {cls.made_by}")
            if files.sha256(file) != digest:
                raise ArtifactError(
                    f"{file} is truncated or changed: its digest differs from {path.name}. {cls.made_by}"
                )
        return cls(folder, manifest)

    @classmethod
    @contextmanager
    def create(cls, folder: str | Path, *, overwrite: bool = False) -> Iterator[tuple[Path, dict[str, Any]]]:
        """Yield a temporary folder and an empty manifest to fill; seal both on a clean exit.

        On an exception nothing is left behind. ``name``, ``schema``, ``created``, ``files``
        and ``digest`` are filled in here.

        Args:
            folder: of the artefact; its name is the artefact's name.
            overwrite: replace an artefact of this kind that exists.

        Raises:
            UsageError: the folder exists, or cannot be written to.
        """
        folder = Path(folder)
        exists = cls.is_at(folder)
        if folder.exists() and not exists and not (folder.is_dir() and not any(folder.iterdir())):
            raise UsageError(
                f"{folder} exists already and is not {cls.article} {cls.kind}: "
                "move it, or choose another name."
            )
        with files.new_folder(folder, replace=overwrite or not exists) as temporary:
            manifest: dict[str, Any] = {}
            yield temporary, manifest
            manifest |= {"schema": cls.schema, "name": folder.name, "created": now()}
            manifest["files"] = {
                path.relative_to(temporary).as_posix(): files.sha256(path)
                for path in sorted(temporary.rglob("*"))
                if path.is_file()
            }
            if absent := [key for key in cls.required if key not in manifest]:
                raise AssertionError(f"{cls.kind} manifest without {absent}")
            manifest["digest"] = _manifest_digest(manifest)
            files.write_json(temporary / cls.manifest_name, manifest)

    @classmethod
    def is_at(cls, folder: str | Path) -> bool:
        """Return whether a folder has a manifest of this kind, valid or not."""
        return (Path(folder) / cls.manifest_name).is_file()

    @classmethod
    def find(cls, root: str | Path) -> list[Path]:
        """Return the folders of this kind at ``root``: itself, or its direct children, sorted."""
        root = Path(root)
        if cls.is_at(root):
            return [root]
        if not root.is_dir():
            return []
        return sorted(
            child for child in root.iterdir() if not child.name.startswith(".") and cls.is_at(child)
        )

    @classmethod
    def find_all(cls, roots: list[Path]) -> list[Path]:
        """Return the folders that :meth:`find` returns for all roots, without duplicates.

        Raises:
            ArtifactError: a root has no artefact of this kind.
        """
        folders: list[Path] = []
        for root in roots:
            at_root = cls.find(root)
            if not at_root:
                problem = f"contains no {cls.kind}s" if root.is_dir() else "does not exist"
                raise ArtifactError(f"{root} {problem}. {cls.made_by}")
            folders += [path for path in at_root if path not in folders]
        return folders

    @property
    def name(self) -> str:
        """The folder's name, also after it was copied or renamed."""
        return self.folder.resolve().name

    @property
    def digest(self) -> str:
        return str(self.manifest["digest"])

    @property
    def task(self) -> Task:
        """The task as it was when the artefact was written, tasks inferred from files included."""
        return Task.from_json(self.manifest["task_definition"])

    @property
    def max_length(self) -> int:
        """Maximum tokens per example, in training and in evaluation."""
        return int(self.manifest["max_length"])

    @property
    def data(self) -> str | None:
        """The folder that the rows were read from; None: the hub or the demo corpus."""
        source = self.manifest.get("data")
        return str(source) if source else None


class Checkpoint(_Artifact):
    """Trained weights and the structure that remains."""

    article, kind = "a", "checkpoint"
    schema = 1
    manifest_name = "effx.json"
    made_by = "Make one with: effx train finetune TASK --model MODEL"
    required = (
        "task",
        "task_definition",
        "model",
        "seed",
        "training",
        "metrics",
        "parent",
        "versions",
        "structure",
        "parameters",
        "weight_remaining",
        "max_length",
    )


class Engine(_Artifact):
    """A built variant of a checkpoint for one backend and device."""

    article, kind = "an", "engine"
    schema = 2
    manifest_name = "engine.json"
    made_by = "Build it again with: effx export"
    required = (
        "task",
        "task_definition",
        "variant",
        "precision",
        "scheme",
        "backend",
        "device",
        "checkpoint",
        "inputs",
        "labels",
        "structure",
        "parameters",
        "parity",
        "exits",
        "runtime",
        "built_on",
        "versions",
        "max_length",
    )

    @property
    def backend(self) -> str:
        return str(self.manifest["backend"])

    @property
    def device(self) -> str:
        return str(self.manifest["device"])

    @property
    def on_gpu(self) -> bool:
        """Whether it runs on a GPU."""
        return self.device != "cpu"

    @property
    def variant(self) -> str:
        return str(self.manifest["variant"])

    @property
    def runtime(self) -> RuntimeSettings:
        """What its runtime must know to open and run its files."""
        return RuntimeSettings.from_json(self.manifest["runtime"])

    @property
    def input_names(self) -> list[str]:
        return [str(entry["name"]) for entry in self.manifest["inputs"]]

    @property
    def size_bytes(self) -> int:
        """Bytes of the graph and weights on disk, without tokenizer and manifests."""
        return sum(
            (self.folder / name).stat().st_size
            for name in self.manifest["files"]
            if not name.endswith((".json", ".txt"))
        )


def now() -> str:
    """Return the time in UTC as ISO 8601 with seconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _manifest_digest(manifest: Mapping[str, Any]) -> str:
    return files.json_digest({key: value for key, value in manifest.items() if key != "digest"})
