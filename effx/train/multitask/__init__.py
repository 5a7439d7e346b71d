"""Multi-task training: several tasks, one shared encoder, and the super tickets of the tasks in it."""

from effx.train.multitask.run import multitask
from effx.train.multitask.sharing import SharedModel, union

__all__ = ["SharedModel", "multitask", "union"]
