"""What works on this machine, what does not, and the command that fixes it.

    software   Python, packages and their clashes, providers that really load
    machine    processor, GPU, energy counters, limits of containers and virtual machines, disk

Every check is a function that returns lines and changes nothing; roots and libraries that it reads
are arguments, so that tests can put others in their place.
"""

from effx.doctor.line import Line
from effx.doctor.run import examine

__all__ = ["Line", "examine"]
