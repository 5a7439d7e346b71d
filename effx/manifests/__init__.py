"""What the manifests of checkpoints (effx.json) and engines (engine.json) hold, as typed records.

A manifest is read once, where its folder is opened (:mod:`effx.artifacts`). What can be computed from other
values is checked against them here; what needs the folder's files is checked there, and what needs the model
in :mod:`effx.models.checkpoints`.
"""

from effx.manifests.checkpoint import CheckpointFacts, CheckpointManifest
from effx.manifests.common import ArtifactReference, Manifest
from effx.manifests.dynamic import (
    ExitCalibration,
    ExitsRecord,
    ExitTarget,
    ExitValidation,
    ProvenLoss,
    RowShift,
    TokensCalibration,
    TokensRecord,
    TokensTarget,
    TokensValidation,
    TwoSamples,
)
from effx.manifests.engine import (
    BuildHost,
    CandidateRecord,
    CheckpointOrigin,
    EncoderShape,
    EngineInput,
    EngineManifest,
    ForeignGraph,
    HeadRecord,
    head_output,
)
from effx.manifests.pruning import (
    LayerReductionRecord,
    OneShotRecord,
    RemovedCounts,
    SparsityRecord,
    TicketRecord,
)
from effx.manifests.training import (
    IMPORT_READER,
    BaselineRecord,
    DistillationRecord,
    ImportRecord,
    RowDraw,
    SharedRecord,
    TrainingRecord,
    TrainingStage,
)
from effx.manifests.verification import Audit, Parity, PlanAudit, check_parity

__all__ = [
    "ArtifactReference",
    "Audit",
    "BaselineRecord",
    "BuildHost",
    "CandidateRecord",
    "CheckpointFacts",
    "CheckpointManifest",
    "CheckpointOrigin",
    "DistillationRecord",
    "EncoderShape",
    "EngineInput",
    "EngineManifest",
    "ExitCalibration",
    "ExitTarget",
    "ExitValidation",
    "ExitsRecord",
    "ForeignGraph",
    "HeadRecord",
    "IMPORT_READER",
    "ImportRecord",
    "LayerReductionRecord",
    "Manifest",
    "OneShotRecord",
    "Parity",
    "PlanAudit",
    "ProvenLoss",
    "RemovedCounts",
    "RowDraw",
    "RowShift",
    "SharedRecord",
    "SparsityRecord",
    "TicketRecord",
    "TokensCalibration",
    "TokensRecord",
    "TokensTarget",
    "TokensValidation",
    "TrainingRecord",
    "TrainingStage",
    "TwoSamples",
    "check_parity",
    "head_output",
]
