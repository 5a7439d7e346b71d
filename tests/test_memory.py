from __future__ import annotations

import gc

import pytest

from effx import memory


def test_the_collector_rests_and_is_back_even_after_an_error() -> None:
    assert gc.isenabled()
    with pytest.raises(ValueError, match="within"), memory.collector_paused():
        assert not gc.isenabled()
        with memory.collector_paused():
            pass
        assert not gc.isenabled()  # as it was found
        raise ValueError("within")
    assert gc.isenabled()
