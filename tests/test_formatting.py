"""Formatting of numbers."""

from __future__ import annotations

import csv
import io

import pytest

from effx import formatting


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.9, "0.900"), (12.34, "12.3"), (999.4, "999"), (999.5, "1000"), (9.996, "10.0"), (12345.6, "12346"),
        (0, "0"), (-0.01234, "-0.0123"), (1.2345e-5, "1.23e-5"), (9.9999e-5, "0.000100"), (2.5e7, "2.50e+7"),
        (None, "–"), (float("nan"), "–"), (float("inf"), "–"),
    ],
)  # fmt: skip
def test_three_significant_digits_and_all_before_the_point(value: float | None, text: str) -> None:
    assert formatting.significant(value) == text


def test_halves_are_rounded_away_from_zero() -> None:
    assert [formatting.fixed(value, 0) for value in (0.5, 1.5, 2.5, -2.5)] == ["1", "2", "3", "-3"]
    assert formatting.fixed(-0.0004, 3) == "0.000"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.01234, "s", "12.3 ms"), (98 * 2**20, "B", "98.0 MiB"), (0.5, "J/example", "500 mJ/example"),
        (1.5, "J/example", "1.50 J/example"), (66_800_000, "count", "66.8 million"), (0.91234, "", "0.9123"),
        (123.4, "1/s", "123 examples/s"),
    ],
)  # fmt: skip
def test_every_quantity_is_shown_in_one_unit(value: float, unit: str, text: str) -> None:
    assert formatting.with_unit(value, unit) == text
    if formatting.symbol(unit) == text.partition(" ")[2]:
        assert formatting.in_column(value, unit) == text.partition(" ")[0]


@pytest.mark.parametrize("unit", [unit for unit in formatting.UNITS if unit])
@pytest.mark.parametrize("up", [True, False])
def test_a_value_rounded_outwards_meets_itself_as_a_limit(unit: str, up: bool) -> None:
    for value in (1.23456, 9.9999, 0.000123456, 0.0999999, 1234.567, 3e8):
        number, _, symbol = formatting.rounded_outwards(value, unit, up=up).partition(" ")
        factor = 1.0 if symbol.startswith("J") else formatting.UNITS[unit].factor
        shown = float(number) / factor
        assert shown >= value * (1 - 1e-10) if up else shown <= value * (1 + 1e-10)
        assert shown == pytest.approx(value, rel=0.02)


def test_a_limit_is_not_rounded() -> None:
    assert formatting.limit(0.005, "s") == "5 ms"
    assert formatting.limit(500e6, "B") == "500 MB (477 MiB)"
    assert formatting.limit(64 * 2**20, "B") == "64 MiB"
    assert formatting.limit(30e6, "B") == "30 MB (28.6 MiB)"
    assert formatting.limit(1.5e9, "B") == "1.5 GB (1431 MiB)"
    assert formatting.limit(0.91, "") == "0.91"


def test_shares_near_the_ends_do_not_read_as_none_or_all() -> None:
    shares = (0, 0.004, 0.436, 0.996, 1)
    assert list(map(formatting.percent, shares)) == ["0 %", "0.4 %", "44 %", "99.6 %", "100 %"]


def test_points_have_a_sign() -> None:
    assert [formatting.confidence(share) for share in (0.95, 0.975, 0.9999)] == ["95 %", "97.5 %", "99.99 %"]
    limits = [formatting.limit_points(share) for share in (0.01, 0.0004, 0.000375, 0.05)]
    assert limits == ["1 point", "0.04 points", "0.0375 points", "5 points"]
    assert [formatting.points(share) for share in (0.0123, -0.0123, -0.0001)] == ["+1.2", "-1.2", "+0.0"]


def test_small_p_values_are_bounds() -> None:
    assert [formatting.p_value(p) for p in (0.0123, 1.0, 1e-9)] == ["p = 0.012", "p = 1.0", "p < 0.0001"]


def test_ratios_have_two_decimals_or_three_digits() -> None:
    assert [formatting.times(value) for value in (0.5, 9.987, 12.34, 0.0123)] == [
        "0.50",
        "9.99",
        "12.3",
        "0.0123",
    ]


def test_tables_as_csv_and_markdown_are_read_back() -> None:
    head, rows = ["name", "-share"], [["=1+1", 1 / 3], ["a, b|c\nd", None], ["e", True], ["f", -2]]
    read = list(csv.reader(io.StringIO(formatting.csv_text(head, rows))))
    assert read == [
        ["name", "'-share"],
        ["'=1+1", repr(1 / 3)],
        ["a, b|c\nd", ""],
        ["e", "True"],
        ["f", "-2"],
    ]
    texts = [["a, b|c\nd", "0.5"], ["", "x"]]
    assert formatting.markdown_table(["name", "a|b"], texts).splitlines() == [
        r"| name | a\|b |", "|---|---|", r"| a, b\|c d | 0.5 |", "|  | x |",
    ]  # fmt: skip
