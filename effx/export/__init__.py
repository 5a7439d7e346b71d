"""Export: checkpoints become engines, each verified against its checkpoint."""

from effx.errors import need

need("train", "torch", "transformers")
need("export", "onnx", "onnxscript")

from effx.export.plan import export, export_all  # noqa: E402 - after the checks above
from effx.export.triton import write_all as to_triton  # noqa: E402
from effx.export.verify import verify  # noqa: E402

__all__ = ["export", "export_all", "to_triton", "verify"]
