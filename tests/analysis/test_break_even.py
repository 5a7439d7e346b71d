"""After how many queries a reduction has paid for itself, against arithmetic by hand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from effx import results
from effx.analysis import break_even, wording
from effx.analysis.break_even import CPU_TIME, ENERGY, Payback, payback, reduction_costs
from effx.analysis.comparison import compare
from effx.costs import Cost, EnergySpent, Expense
from effx.report import report
from effx.results import Run, StructureSummary
from tests.analysis.simulated_run import simulated_run

FULL, TICKET, IMPORTED = "f" * 64, "7" * 64, "1" * 64


def expense(
    checkpoint: str,
    joules: float | None = None,
    *,
    kind: str = "training",
    cpu_s: float = 0.0,
    width: float = 0.0,
    source: str = "counter",
    meter: str = "rapl",
    hardware: str = "simulated",
) -> Expense:
    spent = {"source": source, "meter": meter, "joules": joules}
    if joules is None:
        spent = {"source": "none", "meter": meter, "reason": "no counter here"}
    elif width:
        spent["interval"] = ((1 - width) * joules, (1 + width) * joules)
    cost = Cost(
        seconds=cpu_s / 2, cpu_s=cpu_s, sequences=1, energy=EnergySpent.model_validate(spent),
        hardware=hardware, host_peak_bytes=3_000_000,
    )  # fmt: skip
    return Expense(kind=kind, checkpoint=checkpoint, name=checkpoint[:4], cost=cost)


def made(
    name: str,
    expenses: Sequence[Expense] | None,
    *,
    reduced: bool,
    joules: float | None = None,
    cpu_s: float | None = None,
    precision: str = "fp32",
    source: str = "counter",
    meter: str = "rapl",
) -> Run:
    """An engine whose queries take joules and processor seconds, the same in every round but for noise."""
    run = simulated_run(name, joules=joules, precision=precision, source=source, meter=meter, rounds=8)
    single = run.workloads[0]
    if cpu_s is not None:
        rng = np.random.default_rng(list(name.encode()))
        blocks = [cpu_s * len(block) * rng.uniform(0.98, 1.02) for block in single.blocks_s]
        single = replace(single, cpu_s=blocks)
    layers = 4 if reduced else 6
    engine = replace(
        run.engine, expenses=None if expenses is None else tuple(expenses),
        weight_remaining=0.7 if reduced else 1.0,
        structure=StructureSummary(layers, [12] * layers, [100] * layers, 12, 100),
    )  # fmt: skip
    return replace(run, engine=engine, workloads=[single])


def of(paybacks: Sequence[Payback], quantity: str) -> Payback:
    return next(each for each in paybacks if each.quantity == quantity)


def test_extra_joules_over_saved_joules_by_hand() -> None:
    full = made("full", [expense(FULL, 500.0, width=0.1)], reduced=False, joules=0.3)
    chain = [
        expense(FULL, 500.0, width=0.1),
        expense(FULL, 40.0, width=0.1, kind="importance"),
        expense(TICKET, 400.0, width=0.1),
    ]
    ticket = made("ticket", chain, reduced=True, joules=0.2)
    (cost,) = reduction_costs([full, ticket])
    assert (cost.engine, cost.unreduced) == ("ticket", "full")
    assert cost.computations == tuple(chain[1:])  # the full model is needed by both
    found = of(cost.paybacks, ENERGY)
    assert found.extra == pytest.approx(440.0)
    assert found.extra_interval == pytest.approx((396.0, 484.0))
    assert found.saved == pytest.approx(0.1)
    assert found.queries == pytest.approx(4400.0)
    assert found.interval is not None and found.interval[1] is not None
    low, high = found.saved_interval or (0.0, 0.0)
    assert 0 < low < 0.1 < high
    assert found.interval == pytest.approx((396.0 / high, 484.0 / low))
    shown = re.fullmatch(r"4,400 \[(.+), (.+)\]", found.text())
    assert shown is not None
    ends = [float(each.replace(",", "")) for each in shown.groups()]
    assert 396 / high - 10 < ends[0] <= 396 / high and 484 / low <= ends[1] < 484 / low + 10


def test_what_only_the_unreduced_model_needed_is_subtracted() -> None:
    full = made("full", [expense(FULL, 500.0, width=0.1)], reduced=False, joules=0.3)
    small = made("small", [expense(TICKET, 200.0, width=0.1)], reduced=True, joules=0.2)
    found = of(reduction_costs([full, small])[0].paybacks, ENERGY)
    assert found.extra == pytest.approx(-300.0)
    assert found.extra_interval == pytest.approx((180.0 - 550.0, 220.0 - 450.0))
    assert (found.queries, found.interval) == (0.0, (0.0, 0.0))
    assert found.text() == "at once: it took no more to make"


def test_processor_seconds_pay_where_there_is_no_counter() -> None:
    full = made("full", [expense(FULL, cpu_s=100.0)], reduced=False, cpu_s=0.03)
    chain = [expense(FULL, cpu_s=100.0), expense(TICKET, cpu_s=50.0)]
    ticket = made("ticket", chain, reduced=True, cpu_s=0.02)
    (cost,) = reduction_costs([full, ticket])
    cpu, energy = of(cost.paybacks, CPU_TIME), of(cost.paybacks, ENERGY)
    assert cost.seconds == pytest.approx(25.0)
    assert cpu.extra == pytest.approx(50.0)
    assert cpu.queries == pytest.approx(5000.0, rel=0.03)
    assert cpu.interval is not None and cpu.interval[1] is not None
    assert cpu.interval[0] < 5000.0 < cpu.interval[1]
    assert energy.queries is None
    assert energy.text() == "the energy of training was not measured: no counter here"


def test_an_engine_that_may_save_nothing_may_never_pay() -> None:
    full = made("full", [expense(FULL, 1.0)], reduced=False, joules=0.3)
    near = made("near", [expense(FULL, 1.0), expense(TICKET, 50.0)], reduced=True, joules=0.2999)
    found = of(reduction_costs([full, near])[0].paybacks, ENERGY)
    assert found.interval is not None
    assert found.interval[1] is None
    assert found.text().endswith("never]")
    worse = made("worse", near.engine.expenses, reduced=True, joules=0.4)
    assert payback(ENERGY, worse, full).text() == "a query takes no less"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("training", "queries", "reason"),
    [
        ({"source": "model", "meter": "model:10"}, {}, "an estimate is not compared with a measurement"),
        ({}, {"source": "model", "meter": "model:10"}, "an estimate is not compared with a measurement"),
        (
            {"source": "model", "meter": "model:5"},
            {"source": "model", "meter": "model:10"},
            "or with one of other watts",
        ),
        ({"source": "model", "meter": "model:10"}, {"source": "model", "meter": "model:10"}, None),
        ({"source": "integrated", "meter": "nvml"}, {}, None),  # trained on a GPU, measured on a processor
    ],
)
def test_estimates_and_measurements_are_not_mixed(
    training: dict[str, str], queries: dict[str, str], reason: str | None
) -> None:
    full = made("full", [expense(FULL, 1.0)], reduced=False, joules=0.3, **queries)  # type: ignore[arg-type]
    ticket = made(
        "ticket", [expense(FULL, 1.0), expense(TICKET, 50.0, **training)], reduced=True, joules=0.2,
        **queries,  # type: ignore[arg-type]
    )  # fmt: skip
    found = payback(ENERGY, ticket, full)
    assert found is not None
    assert (found.queries is None) == (reason is not None)
    assert reason is None or reason in found.text()


def test_seconds_of_another_processor_are_not_compared() -> None:
    full = made("full", [expense(FULL)], reduced=False, cpu_s=0.03)
    chain = [expense(FULL), expense(TICKET, cpu_s=50.0, hardware="NVIDIA H100")]
    found = payback(CPU_TIME, made("ticket", chain, reduced=True, cpu_s=0.02), full)
    assert found is not None
    assert found.text() == "trained on NVIDIA H100, measured on simulated: seconds are not comparable"


def test_an_unknown_cost_cancels_if_both_need_it_and_is_told_otherwise() -> None:
    unknown = Expense(kind="training", checkpoint=IMPORTED, name="imported")
    full = made("full", [unknown], reduced=False, joules=0.3)
    ticket = made("ticket", [unknown, expense(TICKET, 10.0)], reduced=True, joules=0.2)
    found = payback(ENERGY, ticket, full)
    assert found is not None
    assert found.queries == pytest.approx(100.0)
    other = payback(ENERGY, ticket, made("other", [expense(FULL, 1.0)], reduced=False, joules=0.3))
    assert other is not None
    assert other.text() == "what the training of imported took was not recorded"


def test_an_engine_is_compared_with_the_unreduced_one_of_its_precision() -> None:
    runs = [
        made("full.fp32", [expense(FULL, 1.0)], reduced=False, joules=0.6),
        made("full.int8", [expense(FULL, 1.0)], reduced=False, joules=0.3, precision="int8"),
        made("ticket.int8", [expense(FULL, 1.0), expense(TICKET, 10.0)], reduced=True, joules=0.2,
             precision="int8"),
        made("older", None, reduced=True, joules=0.2),
    ]  # fmt: skip
    (cost,) = reduction_costs(runs)
    assert (cost.engine, cost.unreduced) == ("ticket.int8", "full.int8")
    assert of(cost.paybacks, ENERGY).queries == pytest.approx(100.0)


def test_only_the_reduction_is_credited() -> None:
    """What another precision or encoder saves needs no training."""
    full = made("full", [expense(FULL, 1.0)], reduced=False, joules=0.6)
    chain = [expense(FULL, 1.0), expense(TICKET, 400.0)]
    ticket = made("ticket", chain, reduced=True, joules=0.2, precision="int8")
    assert payback(ENERGY, ticket, full) is None
    assert compare(full, ticket).paybacks == []
    other = made("other", chain, reduced=True, joules=0.2)
    other = replace(other, engine=replace(other.engine, model="another encoder"))
    assert payback(ENERGY, other, full) is None
    seed = made("full-s1", [expense(IMPORTED, 1.0)], reduced=False, joules=0.5)
    assert payback(ENERGY, seed, full) is None


@pytest.mark.parametrize("order", [1, -1])
def test_a_ticket_is_compared_with_its_own_parent(order: int) -> None:
    parent = made("full-s0", [expense(FULL, 500.0)], reduced=False, joules=0.3)
    other = made("full-s1", [expense(IMPORTED, 700.0)], reduced=False, joules=0.3)
    ticket = made("ticket", [expense(FULL, 500.0), expense(TICKET, 40.0)], reduced=True, joules=0.2)
    (cost,) = reduction_costs([*[parent, other][::order], ticket])
    assert cost.unreduced == "full-s0"
    assert of(cost.paybacks, ENERGY).extra == pytest.approx(40.0)


def test_what_may_take_more_to_make_is_not_said_to_pay_at_once() -> None:
    full = made("full", [expense(FULL, 500.0, width=0.3)], reduced=False, joules=0.3)
    small = made("small", [expense(TICKET, 490.0, width=0.3)], reduced=True, joules=0.2)
    found = of(reduction_costs([full, small])[0].paybacks, ENERGY)
    assert found.queries == 0.0 and found.interval is not None and found.interval[0] == 0.0
    assert found.text().startswith("0 [0, 3,")


def test_processor_seconds_do_not_pay_for_engines_on_a_gpu() -> None:
    full = made("full", [expense(FULL)], reduced=False, cpu_s=0.03)
    ticket = made("ticket", [expense(FULL), expense(TICKET, cpu_s=5.0)], reduced=True, cpu_s=0.02)
    on_gpu = [replace(run, engine=replace(run.engine, device="cuda")) for run in (full, ticket)]
    found = payback(CPU_TIME, on_gpu[1], on_gpu[0])
    assert found is not None
    assert "runs on a GPU" in found.text()


def test_two_prunings_of_one_checkpoint_are_two_computations() -> None:
    full = expense(FULL, 1.0)
    chains = [
        [full, expense(FULL, joules, kind="one-shot pruning").model_copy(update={"settings": digest})]
        for joules, digest in ((5.0, "2x"), (30.0, "3x"))
    ]
    runs = [made(f"p{number}", chain, reduced=True, joules=0.2) for number, chain in enumerate(chains)]
    (first, second) = reduction_costs([made("full", [full], reduced=False, joules=0.3), *runs])
    assert of(first.paybacks, ENERGY).extra == pytest.approx(5.0)
    assert of(second.paybacks, ENERGY).extra == pytest.approx(30.0)


@pytest.mark.parametrize(
    ("extra", "bounds", "saved", "interval", "reason"),
    [
        (1000.0, None, -1e-6, (-1e-3, 1e-3), "a query is not shown to take less; at least 1,000,000 queries"),
        (1000.0, (500.0, 1500.0), -1e-6, (-1e-3, 1e-3),
         "a query is not shown to take less; at least 500,000 queries"),
        (1000.0, None, 0.0, (-1.0, 1.0), "a query is not shown to take less; at least 1,000 queries"),
        (1237.5, None, 0.0, (-1.0, 1.0), "a query is not shown to take less; at least 1,230 queries"),
        (-5.0, None, -1e-6, (-1e-3, 1e-3), "a query is not shown to take less"),
        (1000.0, None, -1e-3, (-2e-3, -1e-4), "a query takes no less"),
        (1000.0, None, -1e-3, None, "a query takes no less"),
        (-5.0, None, -1e-3, (-2e-3, -1e-4), "it took less to make, and a query takes more"),
    ],
)  # fmt: skip
def test_a_saving_that_is_not_ruled_out_is_not_denied(
    extra: float,
    bounds: tuple[float, float] | None,
    saved: float,
    interval: tuple[float, float] | None,
    reason: str,
) -> None:
    queries, spread, told = break_even._queries(extra, bounds, saved, interval)
    assert (queries, spread) == (None, None)
    assert told is not None and told.replace("1.00 million", "1,000,000") == reason


@pytest.mark.parametrize(
    ("queries", "text"),
    [(0.2, "1"), (999.0, "999"), (1234.0, "1,230"), (45_678.0, "45,700"), (1_234_567.0, "1.23 million")],
)
def test_numbers_of_queries_have_three_digits(queries: float, text: str) -> None:
    assert break_even._count(queries) == text


@pytest.mark.parametrize(
    ("ends", "text"),
    [
        ((1238.0, 1242.0), "[1,230, 1,250]"),
        ((123_900.0, 247_001.0), "[123,000, 248,000]"),
        ((0.4, 0.4), "[0, 1]"),
        ((999.0, 999_600.0), "[999, 1.00 million]"),
        ((1_239_999.0, 1_230_001.0), "[1.23 million, 1.24 million]"),
        ((4000.0 - 1e-9, 4000.0 + 1e-9), "[4,000, 4,000]"),
    ],
)
def test_an_interval_of_queries_is_not_told_as_a_narrower_one(ends: tuple[float, float], text: str) -> None:
    found = Payback(ENERGY, 1.0, None, 1.0, None, 1240.0, ends, None)
    assert found.text().removeprefix("1,240 ") == text


def test_report_and_comparison_tell_when_training_pays(tmp_path: Path) -> None:
    full = made("full", [expense(FULL, 500.0)], reduced=False, joules=0.3, cpu_s=0.03)
    chain = [expense(FULL, 500.0), expense(TICKET, 400.0, cpu_s=60.0)]
    ticket = made("ticket", chain, reduced=True, joules=0.2, cpu_s=0.02)
    text = wording.comparison(compare(full, ticket), 0.01)
    assert (
        "training beyond that of the first, energy: 400 J, counter (rapl); queries until it pays: 4,000"
        in text
    )
    for run in (full, ticket):
        results.save(run, tmp_path)
    _, folder = report([tmp_path])
    table = (folder / "training-costs.csv").read_text().splitlines()
    assert table[1].startswith("ticket,full,training of 7777,30.0,60.0,400.0,counter (rapl),3.0,")
    page = (folder / "index.html").read_text()
    assert "What reductions cost to make" in page
    assert '{"text":"+400","sort":400.0}' in page  # numbers to sort by, not texts
    pays = re.search(r'"text":"4,000[^"]*","sort":([\d.]+)}', page)
    assert pays is not None and float(pays[1]) == pytest.approx(4000)
    again = results.find([tmp_path])
    assert {run.name: run.engine.expenses for run in again} == {
        run.name: run.engine.expenses for run in (full, ticket)
    }


def test_without_known_costs_the_report_has_no_such_table(tmp_path: Path) -> None:
    for run in (made("full", None, reduced=False, joules=0.3), made("t", None, reduced=True, joules=0.2)):
        results.save(run, tmp_path)
    _, folder = report([tmp_path])
    assert not (folder / "training-costs.csv").exists()


@pytest.mark.parametrize("threads", [1, None])
def test_a_reduction_is_not_credited_with_what_other_threads_save(threads: int | None) -> None:
    full = made("full", [expense(FULL, cpu_s=100.0)], reduced=False, cpu_s=0.03)
    chain = [expense(FULL, cpu_s=100.0), expense(TICKET, cpu_s=50.0)]
    ticket = made("ticket", chain, reduced=True, cpu_s=0.02)
    if threads is None:  # its own number of threads
        ticket = replace(ticket, engine=replace(ticket.engine, variant="fp32+threads1"))
    else:
        runtime = replace(ticket.settings.runtime, threads=8)
        ticket = replace(ticket, settings=replace(ticket.settings, runtime=runtime))
    assert reduction_costs([full, ticket]) == [] and payback(CPU_TIME, ticket, full) is None
