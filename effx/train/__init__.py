"""Training: fine-tuning regimes, early exits, token schedules, and the embedded demo's pretraining."""

from effx.errors import need

need("train", "torch", "transformers", "accelerate")

from effx.train.finetune import Settings, finetune  # noqa: E402 - after the check above

__all__ = ["Settings", "finetune"]
