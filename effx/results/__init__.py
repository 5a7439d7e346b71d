"""Result files: ``results/ID.json``, what one measurement of one engine gave.

    records    the types: a run, its engine, host, accuracy, workloads, energy, memory, gates; a failure
    storage    reading and writing files; what is read is checked
"""
