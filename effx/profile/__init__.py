"""Profiling: built engines become results. Needs no torch.

engines/NAME ── worker process ─┐
engines/NAME ── worker process ─┼─ interleaved blocks ── results/ID.json ── frontier ── report
engines/NAME ── worker process ─┘
"""

from effx.profile.run import profile, resume
from effx.specs.measurement import MeasurementPlan

__all__ = ["MeasurementPlan", "profile", "resume"]
