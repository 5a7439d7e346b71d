"""effx: which reduction of this encoder gives the most accuracy per joule and millisecond here?

    train -> checkpoints/NAME/ -> export -> engines/NAME/ -> profile -> results/ID.json -> report

Each stage reads a folder and writes a folder; nothing else passes between them. The packages
``effx.models``, ``effx.train`` and ``effx.export`` need torch; ``effx.engines`` and
``effx.profile`` do not, so they run on a target that carries only a runtime.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
