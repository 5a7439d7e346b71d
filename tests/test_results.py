"""Result files: what was written is read, and what was damaged since is named in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from effx import results
from effx.errors import ArtifactError
from effx.host.identity import Host
from effx.results import Failure, Run, latency_summary
from tests.analysis import simulated_results

ROOT = Path(__file__).parents[1]
FAILURE = {
    "schema": 2, "id": "f", "started": "2026-11-21T00:00:00+00:00", "session": "s", "failure": "it died",
    "engine": {"name": "demo-dead"}, "host": {"id": "h"},
}  # fmt: skip


def result() -> Any:
    return json.loads(json.dumps(simulated_results.run(0, n=20, rounds=4, queries=5).to_json()))


def first(value: Any) -> Any:
    return value["workloads"][0]


DAMAGES: dict[str, tuple[Callable[[Any], object], str]] = {
    "another schema": (lambda value: value.update(schema=1), "schema 1 is not 2"),
    "no host": (lambda value: value.update(host=None), "host None is no object"),
    "a host without id": (lambda value: value["host"].pop("id"), "'id' is missing"),
    "no checkpoint": (lambda value: value["engine"].pop("checkpoint"), "'checkpoint' is missing"),
    "no digest": (lambda value: value["engine"].pop("digest"), "engine without digest"),
    "parity of another kind": (lambda value: value["engine"].update(parity=1), "parity 1 is no object"),
    "half a gate": (lambda value: value["gates"][0].pop("detail"), "gate without detail"),
    "an unknown metric": (lambda value: value["accuracy"].update(metric="f2"), "metric 'f2' is none of acc"),
    "no accuracy": (lambda value: value["accuracy"].update(value=None), "None is no number"),
    "NaN": (lambda value: value["accuracy"].update(value=float("nan")), "NaN is no number"),
    "more than a number holds": (lambda value: value["accuracy"].update(value="1e999"), "is no number"),
    "half an interval": (lambda value: first(value)["energy"].update(interval=[1]), r"\[1\] is no interval"),
    "no blocks": (lambda value: first(value).update(blocks_s=[]), "single-stream 1xreal: a block without"),
    "an empty block": (lambda value: first(value)["blocks_s"].append([]), "a block without samples"),
    "a sample of text": (lambda value: first(value)["blocks_s"][0].append("x"), "unsupported operand"),
    "no time": (lambda value: first(value).update(blocks_s=[[0.0]] * 4), "samples that are no times"),
    "a block without round": (lambda value: first(value)["rounds"].pop(), "3 rounds of 4 blocks"),
    "a round too many": (lambda value: first(value).update(examples=[1] * 5), "5 examples of 4 blocks"),
    "no joules": (lambda value: first(value)["energy"].update(joules_per_example=0), "0 J per example"),
    "no shape": (lambda value: first(value).update(sequence="long"), "no shape"),
    "predictions of text": (lambda value: value["accuracy"].update(predictions=["x"]), "unsupported operand"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_one_line_that_names_the_file(name: str, tmp_path: Path) -> None:
    damage, message = DAMAGES[name]
    value = result()
    damage(value)
    path = tmp_path / "r.json"
    path.write_text(json.dumps(value).replace('"1e999"', "1e999"))
    with pytest.raises(ArtifactError, match=message) as caught:
        results.read([tmp_path])
    (line,) = str(caught.value).splitlines()
    assert line.startswith(str(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 99}, "schema 99 is not 2"),
        ({"failure": None}, "None is no text"),
        ({"engine": "demo-dead"}, "engine 'demo-dead' is no object"),
        ({"engine": {}}, "'name' is missing"),
        ({"host": None}, "host None is no object"),
        ({"id": 1}, "1 is no text"),
    ],
)
def test_a_damaged_failure_is_named_as_a_result_is(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = tmp_path / "f.json"
    path.write_text(json.dumps(FAILURE))
    assert [one.failure for one in results.failures([tmp_path])] == ["it died"]
    path.write_text(json.dumps({**FAILURE, **change}))
    with pytest.raises(ArtifactError, match=message) as caught:
        results.find([tmp_path])
    assert str(caught.value).startswith(str(path))


def test_a_failure_of_another_making(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"failure": "broken"}')
    with pytest.raises(ArtifactError, match=r"x.json is no effx result \('schema' is missing\)"):
        results.read([tmp_path])
    (tmp_path / "x.json").write_text('{"schema": 2, "failure": "broken"}')
    with pytest.raises(ArtifactError, match=r"x.json is no effx result .*missing 5 required"):
        results.read([tmp_path])


def test_a_failure_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = Failure("f", "2026", {"name": "e", "task": "t"}, Host("h"), "s", "cannot open [/dev/nvidia0]")
    written.save(tmp_path)
    assert results.failures([tmp_path]) == [written]


def test_what_older_results_lack_may_be_missing(tmp_path: Path) -> None:
    """The first results had no gates, elapsed times, structure or lengths; shared ones have no rows."""
    value = result()
    del value["gates"]
    for key in ("structure", "exits", "max_length", "regime", "model"):
        del value["engine"][key]
    for workload in value["workloads"]:
        for key in ("elapsed_s", "examples", "rate_per_s"):
            del workload[key]
        for key in ("idle", "net_interval"):
            del workload["energy"][key]
    value["accuracy"] |= {"predictions": [], "labels": []}
    run = Run.from_json(value, "old.json")
    assert (run.gates, run.workloads[0].elapsed_s, run.accuracy.labels) == ([], None, [])


def test_published_results_are_still_read() -> None:
    folders = {path.parent for path in (ROOT / "docs" / "results").glob("**/results/*.json")}
    assert folders
    for folder in folders:
        runs, failed = results.read([folder])
        assert len(runs) + len(failed) == len(list(folder.glob("*.json")))


def test_percentiles_are_refused_below_their_counts() -> None:
    assert latency_summary([[0.1] * 63])["p90"] is None
    assert latency_summary([[0.1] * 64])["p90"] == 0.1
    assert latency_summary([[0.1] * 661])["p99"] is None
    assert latency_summary([[number / 1000 for number in range(662)]])["p99"] == 0.655
