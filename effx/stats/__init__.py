"""Statistics: metrics, intervals, tests, bootstrap. NumPy and SciPy only; no results, no devices.

One method per question; intervals contain the true value in 95 % of cases unless stated otherwise.

    accuracy of one engine                Wilson's score interval               intervals.wilson
    another metric of one engine          percentile bootstrap of examples      bootstrap.metric_interval
    difference in accuracy, paired        Tango's score interval                intervals.paired_interval
    difference in another metric, paired  paired percentile bootstrap           intervals.paired_interval
    do two tasks lose the same accuracy   normal, adjusted as Bonett and Price  intervals.adjusted_difference
    are two engines right equally often   McNemar's exact test                  intervals.paired_test
    is another metric of both the same    paired bootstrap, two-sided           intervals.paired_test
    does one lose at most a margin        Tango's score test, paired bootstrap  noninferiority
    several tests against one baseline    Holm's step-down adjustment           tests.holm
    the same, in a given order            fallback procedure                    tests.fallback_levels
    are two orders alike                  Kendall's tau-b                       ranks.kendall
    are two sets of rows alike            Kolmogorov and Smirnov's test         tests.two_samples
    latency of one engine                 bootstrap of blocks, Student's t      intervals.block_interval
    a high percentile of few blocks       counts above it, Korn and Graubard    intervals.block_quantile
    ratio of latencies, interleaved       Student's t on logarithms of rounds   intervals.paired_ratio
    ratio of latencies, not interleaved   Welch's t on logarithms of blocks     intervals.unpaired_ratio
    ratio of two such ratios              Welch's t on logarithms               intervals.welch
    ratio of quantities with intervals    MOVER on logarithms                   intervals.ratio_of_intervals
    mean of a few windows or seeds        Student's t                           intervals.mean_interval
    the same with a common factor         its ends times the factor's bounds    intervals.of_readings

Paired: both engines on the same examples. benchmarks/coverage.py simulates how often each interval
holds the truth.

SciPy is imported where it is used: that takes longer than all other imports of a measuring worker.
"""

CONFIDENCE = 0.95
