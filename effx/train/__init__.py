"""Training: fine-tuning regimes, importance, early exits, token schedules, the demo's pretraining."""

from effx import scratch
from effx.errors import need

need("train", "torch", "transformers", "accelerate")
scratch.for_torch()

from effx.train import importance  # noqa: E402
from effx.train.finetune import finetune  # noqa: E402
from effx.train.importing import as_checkpoint, import_model  # noqa: E402

__all__ = ["as_checkpoint", "finetune", "import_model", "importance"]
