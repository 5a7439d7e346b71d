"""What a builder returns about the files it wrote."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from effx.export.tensorrt_network import ParsedNetwork
from effx.specs.runtime import RuntimeSettings


@dataclass(frozen=True)
class StandIn:
    """Files that run on this machine in place of an engine that cannot: the graphs it was built from."""

    folder: Path
    backend: str
    runtime: RuntimeSettings


@dataclass(frozen=True)
class Built:
    """An engine's files, before they are checked."""

    runtime: RuntimeSettings
    """What the runtime must know, its files included."""
    evidence: tuple[ParsedNetwork, ...] = ()
    """What the audit needs besides the files: the networks that TensorRT parsed, one per file."""
    stand_in: StandIn | None = None
    """What parity is measured on; None: the engine itself."""

    @property
    def files(self) -> tuple[str, ...]:
        """Names of the graphs, in order."""
        return self.runtime.files
