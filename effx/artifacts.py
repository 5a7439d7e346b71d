"""Checkpoints and engines on disk: folders with a manifest that is checked when they are opened.

    checkpoints/NAME/effx.json      weights + structure      Checkpoint    CheckpointManifest
    engines/NAME/engine.json        a built graph            Engine        EngineManifest

A manifest lists the SHA-256 of every other file and a digest of itself, so a truncated, swapped or
edited artefact does not open. An engine's manifest has the digest of its checkpoint, a result that of
its engine: provenance is a chain of digests. The digest leaves out when and where something was built: the
same build in another folder has the same digest. The digests protect from accidents: who writes a folder can
also write its digests. So a manifest is not believed either: it has exact types and must agree with itself
(:mod:`effx.manifests`), and the folder has exactly the files that it lists, all of them regular files.
"""

from __future__ import annotations

import datetime
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from effx import files, records
from effx.costs import TRAINING, Expense, united
from effx.errors import ArtifactError, UsageError, printable
from effx.manifests import CheckpointManifest, EngineManifest, Manifest
from effx.specs import variants
from effx.specs.data import DataRecord
from effx.specs.runtime import RuntimeSettings
from effx.specs.tasks import Task

M = TypeVar("M", bound=Manifest)


@dataclass
class Draft(Generic[M]):
    """An artefact that is being written."""

    folder: Path
    """A temporary folder for its files."""
    manifest: M | None = None
    """To be set before the block ends; ``name``, ``created`` and ``files`` are filled in then."""
    digest: str | None = None
    """Of the sealed artefact; None: it is not sealed yet."""


@dataclass(frozen=True)
class _Artifact(Generic[M]):
    """A folder with a manifest that has been checked against the folder's files."""

    folder: Path
    manifest: M
    digest: str
    """SHA-256 of the manifest without itself and ``not_in_digest``; so of everything in the folder."""

    article: ClassVar[str]
    kind: ClassVar[str]
    manifest_name: ClassVar[str]
    schema: ClassVar[int]
    made_by: ClassVar[str]
    required_files: ClassVar[tuple[str, ...]]
    not_in_digest: ClassVar[frozenset[str]] = frozenset({"name", "created"})
    """Keys of the manifest that its digest leaves out: when and where an artifact was made."""

    @classmethod
    def manifest_type(cls) -> type[M]:
        """Return the type of the manifest."""
        raise NotImplementedError

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """Read and check an artefact.

        Raises:
            ArtifactError: the folder or its manifest is missing, unreadable or of another schema; the
                manifest contradicts itself; a file is missing, not listed, not a regular file, or differs
                from its digest.
        """
        folder = Path(folder)
        path = folder / cls.manifest_name
        if not cls.is_at(folder):
            problem = f"is not {cls.article} {cls.kind}: {path.name} is missing"
            if not folder.exists():
                problem = "does not exist"
            raise ArtifactError(f"{folder} {problem}. {cls.made_by}")
        try:
            value = records.read_json(path)
            schema, digest = value.pop("schema", None), value.pop("digest", None)
            if type(schema) is not int or schema != cls.schema:
                raise ArtifactError(f"{path}: expected schema {cls.schema}, got {schema!r}.")
            if digest != _digest(cls, {"schema": schema, **value}):
                raise ArtifactError(f"{path} was changed after it was written.")
            manifest = records.build(cls.manifest_type(), value, path)
            try:
                records.check_texts(value)
            except ValueError as error:
                raise ArtifactError(f"{path}: {error}.") from error
            cls._check_files(folder, manifest)
        except ArtifactError as error:
            raise ArtifactError(f"{error} {cls.made_by}") from error
        return cls(folder, manifest, digest)

    @classmethod
    def _check_files(cls, folder: Path, manifest: M) -> None:
        """Raise :class:`ArtifactError` unless the folder has exactly the files that the manifest lists."""
        present = set(_regular_files(folder)) - {cls.manifest_name}
        if absent := sorted({*manifest.files, *cls.required_files} - present):
            raise ArtifactError(f"{folder}: {absent[0]} is missing.")
        if unlisted := sorted(present - set(manifest.files)):
            raise ArtifactError(f"{folder}: {unlisted[0]!r} is not listed in {cls.manifest_name}: remove it.")
        for name, digest in manifest.files.items():
            if files.sha256(folder / name) != digest:
                raise ArtifactError(
                    f"{folder / name} is truncated or changed: its digest differs from {cls.manifest_name}."
                )

    @classmethod
    @contextmanager
    def create(cls, folder: str | Path, *, overwrite: bool = False) -> Iterator[Draft[M]]:
        """Yield a draft to fill: files in its temporary folder, and its manifest; seal both on a clean exit.

        On an exception nothing is left behind.

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
            draft: Draft[M] = Draft(temporary)
            yield draft
            if draft.manifest is None:
                raise AssertionError(f"{cls.kind} without a manifest")
            listed = {name: files.sha256(temporary / name) for name in sorted(_regular_files(temporary))}
            value = draft.manifest.model_copy(
                update={"name": folder.resolve().name, "created": now(), "files": listed}
            ).to_json()
            sealed = seal(cls, records.printable_json(value))
            files.write_json(temporary / cls.manifest_name, sealed)
            draft.digest = sealed["digest"]

    @classmethod
    def is_at(cls, folder: str | Path) -> bool:
        """Return whether a folder has a manifest of this kind, valid or not."""
        return os.path.lexists(Path(folder) / cls.manifest_name)  # a link or folder is refused, not ignored

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
    def task(self) -> Task:
        """The task as it was when the artefact was written, tasks inferred from files included."""
        return self.manifest.task_definition

    @property
    def max_length(self) -> int:
        """Maximum tokens per example, in training and in evaluation."""
        return self.manifest.max_length

    @property
    def data(self) -> DataRecord | None:
        """Which rows it was made with; None: those of the hub or the demo corpus."""
        return self.manifest.data

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as its file has it."""
        return {"schema": self.schema, **self.manifest.to_json(), "digest": self.digest}


class Checkpoint(_Artifact[CheckpointManifest]):
    """Trained weights and the structure that remains."""

    article, kind = "a", "checkpoint"
    schema = 4
    manifest_name = "effx.json"
    made_by = "Make one with: effx train finetune TASK --model MODEL"
    required_files = ("config.json", "model.safetensors", "tokenizer.json")

    @classmethod
    def manifest_type(cls) -> type[CheckpointManifest]:
        return CheckpointManifest

    def expenses(self) -> tuple[Expense, ...]:
        """Return what had to be computed to have it, its own training last.

        If that is unknown, as of imported models, it is one training of unknown cost. The training of several
        tasks is one computation, whichever of its checkpoints is asked.
        """
        manifest = self.manifest
        known = manifest.expenses is not None
        before = manifest.expenses or ()
        if known and manifest.one_shot is not None:
            return before  # written without training: the record of a training is the parent's
        training = Expense(
            kind=TRAINING,
            checkpoint=self.digest if manifest.shared is None else manifest.shared.encoder,
            name=self.name,
            cost=manifest.training.cost if known else None,
        )
        return united(before, [training])

    def scores_text(self, values: Mapping[str, float] | None = None) -> str:
        """Return the metrics of the task as one line; ``values``: default, those in the manifest."""
        shown = self.manifest.metrics if values is None else values
        return ", ".join(f"{metric} {shown[metric]:.4f}" for metric in self.task.metrics)


class Engine(_Artifact[EngineManifest]):
    """A built variant of a checkpoint for one backend and device."""

    article, kind = "an", "engine"
    schema = 5
    manifest_name = "engine.json"
    made_by = "Build it again with: effx export"
    required_files = ("config.json", "tokenizer.json")
    not_in_digest = frozenset({"name", "created", "build_s", "built_on", "candidates"})

    @classmethod
    def manifest_type(cls) -> type[EngineManifest]:
        return EngineManifest

    @classmethod
    def _check_files(cls, folder: Path, manifest: EngineManifest) -> None:
        runtime = manifest.runtime
        for name in (*runtime.files, *runtime.weight_files.values()):
            if name not in manifest.files:
                raise ArtifactError(f"{folder}: runtime names {name!r}, which is not listed in files.")
        super()._check_files(folder, manifest)

    @property
    def backend(self) -> str:
        return self.manifest.backend

    @property
    def device(self) -> str:
        return self.manifest.device

    @property
    def on_gpu(self) -> bool:
        """Whether it runs on a GPU."""
        return self.device != "cpu"

    @property
    def variant(self) -> str:
        return self.manifest.variant

    @property
    def stride(self) -> int | None:
        """Tokens that windows of a context have in common; None: a third of their length."""
        return variants.parse(self.variant).stride

    @property
    def runtime(self) -> RuntimeSettings:
        """What its runtime must know to open and run its files."""
        return self.manifest.runtime

    @property
    def parity_passed(self) -> bool:
        """Whether the answers of all its heads were compared with their checkpoints', and passed the gate."""
        return self.manifest.worst_parity is not None and self.manifest.worst_parity.passed

    @property
    def input_names(self) -> list[str]:
        return [entry.name for entry in self.manifest.inputs]

    @property
    def size_bytes(self) -> int:
        """Bytes of the graph and weights on disk, without tokenizer and manifests."""
        return sum(
            (self.folder / name).stat().st_size
            for name in self.manifest.files
            if not name.endswith((".json", ".txt"))
        )


def now() -> str:
    """Return the time in UTC as ISO 8601 with seconds."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def seal(kind: type[_Artifact[Any]], value: Mapping[str, Any]) -> dict[str, Any]:
    """Return a manifest's JSON with schema and digest, as :meth:`_Artifact.create` writes it."""
    value = {"schema": kind.schema, **{key: value[key] for key in value if key not in ("schema", "digest")}}
    return {**value, "digest": _digest(kind, value)}


def _digest(kind: type[_Artifact[Any]], value: Mapping[str, Any]) -> str:
    return files.json_digest({key: value[key] for key in value if key not in kind.not_in_digest})


def _regular_files(folder: Path) -> Iterator[str]:
    """Yield the names of all files in a folder and its subfolders, relative, with ``/``.

    Hidden files at the top, as file managers leave them, are not yielded.

    Raises:
        ArtifactError: an entry is a link, a FIFO, a socket or a device.
    """
    pending = [folder]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                name = Path(entry.path).relative_to(folder).as_posix()
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    pending.append(Path(entry.path))
                elif not stat.S_ISREG(mode):
                    kind = "a link" if stat.S_ISLNK(mode) else "not a regular file"
                    raise ArtifactError(f"{folder}: {printable(name)} is {kind}.")
                elif not name.startswith("."):
                    yield name
