"""What works on this machine, what does not, and the command that fixes it.

    software   Python, packages and their conflicts, execution providers that can be loaded
    machine    processor, GPU, energy counters, limits of containers and virtual machines, disk

Every check is a function that returns findings and changes nothing; folders and libraries that it reads
are arguments, so that tests can pass others.
"""

from effx.doctor.finding import Finding
from effx.doctor.run import examine

__all__ = ["Finding", "examine"]
