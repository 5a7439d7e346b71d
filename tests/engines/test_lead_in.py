"""How many queries go untimed before a block."""

from __future__ import annotations

import time
from itertools import count

from effx.engines import lead_in as module
from effx.engines.lead_in import lead_in


def test_the_first_queries_are_asked_and_no_more_than_ten() -> None:
    asked: list[int] = []
    lead_in(asked.append, count())
    assert 1 <= len(asked) <= module.QUERIES and asked == list(range(len(asked)))
    lead_in(asked.append, [])
    lead_in(asked.append, [-1])
    assert asked[-1] == -1


def test_slow_queries_end_it_early() -> None:
    asked: list[int] = []

    def ask(query: int) -> None:
        asked.append(query)
        time.sleep(module.SECONDS)

    lead_in(ask, count())
    assert asked == [0]
