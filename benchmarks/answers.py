"""How often an answer of effx breaks its promise, on simulated sessions with known truth.

    python benchmarks/answers.py                         # everything, prints JSON
    python benchmarks/answers.py --only recommend --sessions 200

``recommend``: one or eight reduced engines and a baseline, a limit of one point on the loss, the smallest
engine is wanted. A promise is broken if the engine that is recommended truly loses more than the limit.
``as_measured`` is the rule of effx until November 2026: the smallest engine whose measured loss is within
the limit, certain in the share of resamplings in which it is. ``proven`` is
:mod:`effx.analysis.certification`.

    broken    percent of sessions with a broken promise
    stated    mean certainty, in percent, that is stated of keeping the limit; of ``proven`` it is the share
              of pairs of resamplings in which the choice of one keeps the limit in the other
    kept      percent of sessions that truly keep the limit; the baseline keeps it
    best      percent of sessions in which the smallest engine that truly keeps the limit is recommended
    reduced   percent of sessions in which any reduced engine that truly keeps it is recommended

``optimize``: the same engines, by :mod:`effx.analysis.fixed_sequence`: tests from the costliest engine to the
first that fails, on all rows. ``all``: every engine is tested. ``clearly_beaten``, as ``effx optimize`` does:
those that a cheaper one beats by more than a standard error on 1000 other rows are not. ``dominated``: those
that a cheaper one equals there are not (Pareto testing). Columns as above, without ``stated``, and ``cost``:
the mean cost of the answer, where the baseline costs 9 and the cheapest of eight engines 1.

``exits``: a rule is calibrated for a loss of at most one point on held-out rows of a model with twelve
layers. ``as_measured`` is the setting with the least depth whose measured loss is within the limit,
``proven`` is :mod:`effx.specs.exit_calibration`. ``layers`` is the mean depth of the chosen setting,
``deepest`` the percent of calibrations in which nothing is proven.

``tokens``: scales of a learned schedule are tested on held-out rows from all tokens to few, as
:func:`effx.train.tokens.prove` does. ``as_measured`` is the last scale whose measured loss is within the
limit, ``proven`` the last before the first failure; ``scale`` is the mean scale that is chosen, and
``all_tokens`` the percent of calibrations in which nothing is proven.

``frontier``: accuracy and size of the same engines. P(non-dominated) is stated of every engine.

    on         of the engines on the measured frontier: mean P, in percent
    truly      percent of them that truly are non-dominated
    off, truly likewise, of all other engines
    knee       percent of sessions in which the measured knee is the true one, of those in which both exist
    p_knee     mean share, in percent, that is stated of it
    wrong      percent of sessions in which some engine's proof, "on" or "dominated", is wrong
    proven     percent of all engines that have a proof

``size``: how often Tango's one-sided test calls a loss of exactly the margin less than it, summed exactly
over all counts, as a multiple of the level; the largest over several shares of differing rows.

Whether a row is right follows from a hardness that all engines or layers share, and their own noise.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[1]))

from effx.analysis import certification, fixed_sequence, pareto
from effx.analysis.constraints import of_constraints
from effx.analysis.fixed_sequence import Choosing
from effx.analysis.frontier import frontier
from effx.analysis.objectives import OBJECTIVES
from effx.artifacts import now
from effx.host import identity
from effx.results import Run
from effx.specs import exit_calibration, exit_rules
from effx.specs.constraints import Constraints
from effx.specs.exit_rules import ExitRule
from effx.stats import noninferiority
from effx.stats.metrics import METRICS
from effx.train.tokens import SCALES
from tests.analysis.simulated_run import simulated_run

LIMIT = 0.01
CONFIDENCE = 0.95
BASELINE = 0.92
SHARED = 0.98
"""Share of the variance of a row's difficulty that is common to all engines."""
CHOOSING_ROWS = 1000
POPULATION = 10_000
POPULATION_THRESHOLDS = 200
LAYER_ACCURACIES = (0.65, BASELINE)
"""Of the first ramp and of the model's head."""
TRUTHS: dict[str, tuple[float, ...]] = {
    "1 engine, as good": (0.0,),
    "1 engine, loses 0.5": (0.005,),
    "1 engine, loses 1.05": (0.0105,),
    "8 engines, smaller ones lose more, 0.2 to 2": (0.002, 0.004, 0.006, 0.008, 0.0105, 0.012, 0.015, 0.02),
    "8 engines, as good": (0.0,) * 8,
    "8 engines, each loses 1.05": (0.0105,) * 8,
    "8 engines, every second one loses more": (0.0, 0.012, 0.002, 0.014, 0.004, 0.016, 0.0105, 0.02),
}
"""True losses of the reduced engines, the largest engine first."""
_STEPS = np.linspace(0, 1, len(SCALES))
SCHEDULES: dict[str, np.ndarray] = {
    "0 to 3": 0.03 * _STEPS**2,
    "0 at all tokens, 1.05 otherwise": np.where(_STEPS > 0, 0.0105, 0.0),
    "1.05 at all tokens, to 3": 0.0105 + 0.0195 * _STEPS,
}
"""True losses of the scales of a token schedule; the training may lose something with all tokens, too."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, nargs="+", default=[872, 9815], help="of recommend")
    parser.add_argument(
        "--certainty-every", type=int, default=1, help="sessions per one whose stated certainty is computed"
    )
    parser.add_argument(
        "--held-out", type=int, nargs="+", default=[500, 872, 6735], help="of exits and tokens"
    )
    parser.add_argument(
        "--rules", nargs="+", choices=tuple(exit_rules.RULES), default=tuple(exit_rules.RULES)
    )
    every = ("size", "recommend", "optimize", "frontier", "exits", "tokens")
    parser.add_argument("--only", nargs="+", choices=every)
    options = parser.parse_args()
    names = options.only or every
    facts: dict[str, object] = {
        "command": " ".join(["python", "benchmarks/answers.py", *sys.argv[1:]]),
        "date": now(),
        "host": identity.host().to_json(),
        "versions": {name: version(name) for name in ("effx", "numpy", "scipy")},
        "sessions": options.sessions,
    }
    if "size" in names:
        facts["size"] = {f"{n} rows, margin {margin}, level {level:.4g}": size(n, margin, level)
                         for n in (300, 872, 9815) for margin in (0.005, 0.01, 0.02)
                         for level in (0.05, 0.05 / 8)}  # fmt: skip
    if "recommend" in names:
        facts["recommend"] = {
            f"{n} rows, {name}": recommended(
                n, losses, options.sessions, options.certainty_every, np.random.default_rng(options.seed)
            )
            for n in options.rows
            for name, losses in TRUTHS.items()
        }
    if "optimize" in names:
        facts["optimize"] = {
            f"{n} rows, {name}": optimized(n, losses, options.sessions, np.random.default_rng(options.seed))
            for n in options.rows
            for name, losses in TRUTHS.items()
            if len(losses) > 1
        }
    if "frontier" in names:
        facts["frontier"] = {
            f"{n} rows, {name}": frontiers(n, losses, options.sessions, np.random.default_rng(options.seed))
            for n in options.rows
            for name, losses in TRUTHS.items()
            if len(losses) > 1
        }
    if "exits" in names:
        facts["exits"] = {
            f"{rule}, {n} held-out rows": exits(
                rule, n, options.sessions, np.random.default_rng(options.seed)
            )
            for rule in options.rules
            for n in options.held_out
        }
    if "tokens" in names:
        facts["tokens"] = {
            f"{n} held-out rows, {name}": tokens(
                losses, n, options.sessions, np.random.default_rng(options.seed)
            )
            for n in options.held_out
            for name, losses in SCHEDULES.items()
        }
    print(json.dumps(facts, indent=1))


def percent(share: float) -> float:
    """Return a share in percent."""
    return round(100 * float(share), 1)


def size(n: int, margin: float, level: float) -> float:
    """Return the largest chance that the test rejects a loss of exactly the margin, divided by its level."""
    chances = []
    for only_after in (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.04):
        only_before = only_after + margin
        a, b = (
            np.arange(stats.binom.ppf(1e-8, n, p), stats.binom.ppf(1 - 1e-8, n, p) + 1)
            for p in (only_before, only_after)
        )
        weights = stats.binom.pmf(a, n, only_before)[:, None] * stats.binom.pmf(
            b[None], n - a[:, None], only_after / (1 - only_before)
        )
        p_values = noninferiority.accuracy_p_values(a[:, None], b[None], n, margin)
        chances.append(float(weights[p_values <= level].sum()))
    return round(max(chances) / level, 2)


def recommended(
    n: int, losses: tuple[float, ...], sessions: int, every: int, rng: np.random.Generator
) -> dict[str, dict[str, float]]:
    """Return what both rules recommend in simulated sessions of n rows."""
    objective = OBJECTIVES["size"]
    good = [loss <= LIMIT for loss in losses]
    smallest_good = max((index for index, each in enumerate(good) if each), default=None)
    chosen: dict[str, list[int | None]] = {"as_measured": [], "proven": []}
    stated: dict[str, list[float]] = {"as_measured": [], "proven": []}
    for session in range(sessions):
        runs = engines(rng, n, losses)
        base, reduced = runs[0], runs[1:]
        limits = of_constraints(Constraints(max_drop=LIMIT), base)
        within = [index for index, run in enumerate(reduced) if limits[0].meets(run)]
        chosen["as_measured"].append(max(within, default=None))
        certified = certification.certify(runs, limits, objective, CONFIDENCE)
        proven = [index for index in range(len(reduced)) if certified.proven[index + 1]]
        chosen["proven"].append(max(proven, default=None))
        if session % every:
            continue
        quality = OBJECTIVES["quality"].draws(runs)
        in_draws = certification.proven_in_resamplings(
            runs, limits, objective, certified, objective.draws(runs)
        )
        choice = chosen["as_measured"][-1]
        stated["as_measured"].append(
            1.0 if choice is None else float(np.mean(quality[choice + 1] >= quality[0] - LIMIT - 1e-9))
        )
        smallest = len(runs) - 1 - np.argmax(in_draws[::-1], axis=0)
        shares = np.bincount(smallest, minlength=len(runs)) / len(smallest)
        kept = certification.kept_in_resamplings(runs, limits)
        stated["proven"].append(float(1 - shares @ (1 - kept)))
    return {
        rule: {**outcome(choices, good, smallest_good), "stated": percent(np.mean(stated[rule]))}
        for rule, choices in chosen.items()
    }


def optimized(
    n: int, losses: tuple[float, ...], sessions: int, rng: np.random.Generator
) -> dict[str, dict[str, float]]:
    """Return what three rules choose in simulated sessions of n rows."""
    good = [loss <= LIMIT for loss in losses]
    smallest_good = max((index for index, each in enumerate(good) if each), default=None)
    chosen: dict[str, list[int | None]] = {"all": [], "clearly_beaten": [], "dominated": []}
    costs = [float(8 - index) for index in range(len(losses))]
    for _ in range(sessions):
        choosing = Choosing(*arrays(engines(rng, CHOOSING_ROWS, losses)), [True] * len(losses))
        labels, baseline, reduced = arrays(engines(rng, n, losses))
        scores = [float(np.mean(each == choosing.labels)) for each in choosing.engines]
        front = [index for index, score in enumerate(scores) if score > max(scores[index + 1 :], default=-1)]
        for rule, tested, rows in (
            ("all", range(len(losses)), None),
            ("clearly_beaten", range(len(losses)), choosing),
            ("dominated", front, None),
        ):
            outcomes_of = fixed_sequence.prove(
                METRICS["accuracy"], labels, baseline, [reduced[index] for index in tested],
                [costs[index] for index in tested], 9.0,
                max_drop=LIMIT, confidence=CONFIDENCE, choosing=rows,
            )  # fmt: skip
            proven = [
                index for index, each in zip(tested, outcomes_of, strict=True)
                if each.state is fixed_sequence.State.PROVEN
            ]  # fmt: skip
            chosen[rule].append(max(proven, default=None))
    return {
        rule: {
            **outcome(choices, good, smallest_good),
            "cost": round(float(np.mean([9.0 if each is None else costs[each] for each in choices])), 2),
        }
        for rule, choices in chosen.items()
    }


def arrays(runs: Sequence[Run]) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Return labels, the baseline's predictions, and those of the others."""
    base, *others = runs
    return (
        base.quality.label_array, base.quality.prediction_array,
        [run.quality.prediction_array for run in others],
    )  # fmt: skip


def outcome(choices: list[int | None], good: list[bool], smallest_good: int | None) -> dict[str, float]:
    """Return how often choices break the promise, keep it, are the best, and are reduced at all."""
    return {
        "broken": percent(np.mean([choice is not None and not good[choice] for choice in choices])),
        "kept": percent(np.mean([choice is None or good[choice] for choice in choices])),
        "best": percent(np.mean([choice is not None and choice == smallest_good for choice in choices])),
        "reduced": percent(np.mean([choice is not None and good[choice] for choice in choices])),
    }


def engines(rng: np.random.Generator, n: int, losses: tuple[float, ...]) -> list[Run]:
    """Return the results of the baseline and of engines that truly lose ``losses``, the largest first."""
    hardness = rng.standard_normal(n)
    runs = []
    for index, loss in enumerate((0.0, *losses)):
        ease = np.sqrt(SHARED) * hardness + np.sqrt(1 - SHARED) * rng.standard_normal(n)
        wrong = np.flatnonzero(ease >= stats.norm.ppf(BASELINE - loss))
        size = 1_000_000 - 1000 * index
        runs.append(simulated_run(str(index), wrong, n=n, rounds=3, queries=1, size=size))
    return runs


def frontiers(n: int, losses: tuple[float, ...], sessions: int, rng: np.random.Generator) -> dict[str, float]:
    """Return what is stated of the engines of frontiers by accuracy and size, and what is true."""
    truth = np.array([[loss, -index] for index, loss in enumerate((0.0, *losses))], dtype=float)
    truly = {str(index) for index in np.flatnonzero(pareto.non_dominated(truth))}
    true_points = truth[sorted(int(name) for name in truly)]
    true_knee = pareto.knee(true_points)
    stated: dict[bool, list[float]] = {True: [], False: []}
    right: dict[bool, list[bool]] = {True: [], False: []}
    knees: list[bool] = []
    p_knees: list[float] = []
    wrong: list[bool] = []
    proven: list[bool] = []
    for _ in range(sessions):
        measured = frontier(engines(rng, n, losses), ("quality", "size"))
        for point in measured.points:
            stated[point.non_dominated].append(point.p_non_dominated)
            right[point.non_dominated].append(point.run.name in truly)
        proofs = [(point.run.name, point.proven) for point in measured.points]
        wrong.append(any(proof is not None and (proof == "on") != (name in truly) for name, proof in proofs))
        proven += [proof is not None for _, proof in proofs]
        if measured.knee is not None and true_knee is not None:
            knees.append(measured.knee == sorted(truly, key=int)[true_knee])
            p_knees.append(measured.p_knee or 0.0)
    facts = {"on": percent(np.mean(stated[True])), "truly": percent(np.mean(right[True]))}
    facts |= {"wrong": percent(np.mean(wrong)), "proven": percent(np.mean(proven))}
    if stated[False]:
        facts |= {"off": percent(np.mean(stated[False])), "off_truly": percent(np.mean(right[False]))}
    if knees:
        facts |= {"knee": percent(np.mean(knees)), "p_knee": percent(np.mean(p_knees))}
    return facts


def exits(rule: str, n: int, sessions: int, rng: np.random.Generator) -> dict[str, dict[str, float]]:
    """Return what both calibrations of a rule do, on rows drawn from a population with known losses."""
    labels, logits = layers(np.random.default_rng(1), POPULATION)
    depths = np.arange(1, len(logits) + 1)
    full = float(np.mean(predicted(logits[-1]) == labels))
    population = exit_rules.candidates(rule, logits, thresholds=POPULATION_THRESHOLDS)
    truth = [
        (float(np.mean(right)), float(mean))
        for right, mean in zip(*outcomes(population, logits, labels, depths), strict=True)
    ]
    losses: dict[str, list[float]] = {"as_measured": [], "proven": []}
    mean_depths: dict[str, list[float]] = {"as_measured": [], "proven": []}
    unproven = 0
    for _ in range(sessions):
        drawn = rng.integers(0, POPULATION, n)
        held, held_labels = logits[:, drawn], labels[drawn]
        settings = exit_rules.candidates(rule, held)
        right, mean = outcomes(settings, held, held_labels, depths)
        within = np.mean(right, axis=1) >= np.mean(predicted(held[-1]) == held_labels) - LIMIT - 1e-9
        measured = settings[int(np.argmin(np.where(within, mean, np.inf)))]
        proven = exit_calibration.prove(
            rule, held, depths, held_labels, predicted, METRICS["accuracy"], max_drop=LIMIT
        )
        unproven += not proven.proven
        for name, setting in (("as_measured", measured), ("proven", proven.rule)):
            never = name == "proven" and not proven.proven
            score, depth = (full, float(depths[-1])) if never else truth[nearest(population, setting)]
            losses[name].append(full - score)
            mean_depths[name].append(depth)
    return {
        name: {
            "broken": percent(np.mean(np.array(losses[name]) > LIMIT)),
            "layers": round(float(np.mean(mean_depths[name])), 2),
            **({"deepest": percent(unproven / sessions)} if name == "proven" else {}),
        }
        for name in losses
    }


def tokens(
    losses: np.ndarray, n: int, sessions: int, rng: np.random.Generator
) -> dict[str, dict[str, float]]:
    """Return what both calibrations of a schedule do, on n rows; neighbouring scales err on like rows."""
    chosen: dict[str, list[int | None]] = {"as_measured": [], "proven": []}
    labels = np.ones(n)
    for _ in range(sessions):
        hardness = np.sqrt(SHARED) * rng.standard_normal(n)
        before = hardness + np.sqrt(1 - SHARED) * rng.standard_normal(n) < stats.norm.ppf(BASELINE)
        own = rng.standard_normal((len(losses), n))
        for index in range(1, len(losses)):
            own[index] = 0.9 * own[index - 1] + np.sqrt(1 - 0.9**2) * own[index]
        right = hardness + np.sqrt(1 - SHARED) * own < stats.norm.ppf(BASELINE - losses)[:, None]
        measured = np.mean(before) - np.mean(right, axis=1)
        within = np.flatnonzero(measured <= LIMIT + 1e-9)
        chosen["as_measured"].append(int(within[-1]) if len(within) else None)
        count = noninferiority.fixed_sequence(
            METRICS["accuracy"], labels, before.astype(float), right.astype(float), LIMIT, 1 - CONFIDENCE
        )
        chosen["proven"].append(count - 1 if count else None)
    return {
        rule: {
            "broken": percent(np.mean([each is not None and losses[each] > LIMIT for each in choices])),
            "scale": round(float(np.mean([SCALES[each or 0] for each in choices])), 2),
            "all_tokens": percent(np.mean([each is None for each in choices])),
        }
        for rule, choices in chosen.items()
    }


def layers(rng: np.random.Generator, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels [n] and the logits of 11 ramps and the head, [12, n, 2]; deeper ones are better."""
    labels = rng.integers(0, 2, n)
    margins = np.linspace(*stats.norm.ppf(LAYER_ACCURACIES), 12)[:, None]
    own = rng.standard_normal((12, n))
    for layer in range(1, 12):  # neighbouring layers err on like rows
        own[layer] = 0.9 * own[layer - 1] + np.sqrt(1 - 0.9**2) * own[layer]
    signal = np.where(labels == 1, 1.0, -1.0) * (margins + own)
    return labels, np.stack([-signal, signal], -1)


def predicted(logits: np.ndarray) -> np.ndarray:
    return np.asarray(logits.argmax(-1))


def outcomes(
    settings: Sequence[ExitRule], logits: np.ndarray, labels: np.ndarray, depths: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return whether each row is right by each setting, [settings, n], and their mean depths."""
    heads = exit_rules.heads_of(settings, logits)
    right = np.array([predicted(out) == labels for out in logits])
    return right[heads, np.arange(len(labels))], depths[heads].mean(axis=1)


def nearest(settings: Sequence[ExitRule], setting: ExitRule) -> int:
    """Return the index of the setting with the same patience and the nearest threshold."""
    return min(
        range(len(settings)),
        key=lambda index: (
            abs(settings[index].patience - setting.patience),
            abs((settings[index].threshold or 0.0) - (setting.threshold or 0.0)),
        ),
    )


if __name__ == "__main__":
    main()
