"""A short run of the fuzzer: some cases of each kind that needs no PyTorch, the same ones every time.

``make fuzz`` runs all cases. What it found once is in the tests of the modules that were wrong.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.campaign import Fuzzer
from tests.fuzz.mutations import mutants
from tests.fuzz.targets import TARGETS, Target

SAMPLES = 60
SLOW = {"section": 3, "engine": 12}
"""Kinds whose command takes long where it accepts a case."""
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_damaged_files_are_refused_in_one_line(target: Target, tmp_path: Path) -> None:
    fuzzer = Fuzzer(target, tmp_path)
    valid = fuzzer.valid()
    assert (valid.code, valid.problem) == (0, "")
    cases = fuzzer.cases()
    chosen = random.Random(0).sample(cases, min(len(cases), SLOW.get(target.name, SAMPLES)))
    wrong = [outcome for case in chosen if (outcome := fuzzer.check(case)).problem]
    assert not wrong


@settings(max_examples=30, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.text(max_size=4), JSON, min_size=1, max_size=3))
def test_a_damaged_document_differs_from_the_valid_one(document: dict[str, object]) -> None:
    for mutant in mutants(document):
        if mutant.rule in ("nested", "nested object"):
            continue  # beyond Python's parser, as intended
        assert mutant.text() != json.dumps(document)
