"""Result files: what was written is read, and a file that cannot be trusted is named in one line."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from effx import results
from effx.errors import ArtifactError
from effx.host.identity import Host
from effx.results import FailedEngineRecord, Failure, WorkloadResult, latency_summary
from effx.stats.metrics import METRICS
from tests.analysis import simulated_results

ROOT = Path(__file__).parents[1]
FAILURE = {
    "schema": 5, "id": "f", "started": "2026-11-21T00:00:00+00:00", "session": "s", "failure": "it died",
    "engine": {"name": "demo-dead"}, "host": {"id": "h"},
}  # fmt: skip
N = 20


def result() -> Any:
    return json.loads(json.dumps(simulated_results.run(0, n=N, rounds=4, queries=5).to_json()))


def first(value: Any) -> Any:
    return value["workloads"][0]


def energy(value: Any) -> Any:
    return first(value)["energy"]


Damage = Callable[[Any], object]
TYPES: dict[str, tuple[Damage, str]] = {
    "another schema": (lambda value: value.update(schema=2), "expected schema 5, got 2"),
    "schema true": (lambda value: value.update(schema=True), "expected schema 5, got True"),
    "no schema": (lambda value: value.pop("schema"), "schema is missing"),
    "no host": (lambda value: value.update(host=None), "host: expected an object"),
    "a host without id": (lambda value: value["host"].pop("id"), "host.id: missing"),
    "cores as text": (lambda value: value["host"].update(cores="8"), "host.cores: .*valid integer"),
    "no checkpoint": (lambda value: value["engine"].pop("checkpoint"), "engine.checkpoint: missing"),
    "a list as engine": (lambda value: value.update(engine=[]), "engine: expected an object"),
    "rows of a query that are not a number": (
        lambda value: value["engine"]["parity"].update(rows_per_query=True),
        "rows_per_query",
    ),
    "parity compared in queries of two rows": (
        lambda value: value["engine"]["parity"].update(rows_per_query=2),
        "rows_per_query: expected 1 or 8",
    ),
    "parity of another kind": (lambda value: value["engine"].update(parity=1), "engine.parity: expected"),
    "an unknown key": (lambda value: value["engine"].update(paritty=None), "engine.paritty: unknown key"),
    "an unknown key of a workload": (
        lambda value: first(value).update(p50=1),
        "workloads\\[0\\].p50: unknown key",
    ),
    "half a gate": (lambda value: value["gates"][0].pop("detail"), "gates\\[0\\].detail: missing"),
    "no accuracy": (lambda value: value["quality"].update(value=None), "quality.value: .*valid number"),
    "true as accuracy": (
        lambda value: value["quality"].update(value=True),
        "quality.value: .*valid number",
    ),
    "scored in queries of a fixed length": (
        lambda value: value["quality"]["workload"].update(length=5),
        "quality.workload: expected single-stream 1xreal or offline",
    ),
    "NaN": (lambda value: value["quality"].update(value=float("nan")), "NaN is not a JSON number"),
    "Infinity": (
        lambda value: first(value)["blocks_s"][0].append(float("inf")),
        "Infinity is not a JSON number",
    ),
    "1e999": (lambda value: value["quality"].update(value="1e999"), "1e999 is too large"),
    "1e999 among samples": (lambda value: first(value)["blocks_s"][0].append("1e999"), "1e999 is too large"),
    "1e999 as a fact": (
        lambda value: value["settings"]["meter"]["details"].update(x="1e999"),
        "1e999 is too large",
    ),
    "a huge integer": (lambda value: value["memory"].update(host_peak_bytes=10**400), "1000.* is too large"),
    "a huge class": (lambda value: value["quality"].update(labels=[10**400] * N), "is too large"),
    "half an interval": (
        lambda value: energy(value).update(interval=[1]),
        "workloads\\[0\\].energy.interval",
    ),
    "a sample of text": (
        lambda value: first(value)["blocks_s"][0].append("x"),
        "blocks_s\\[0\\]\\[5\\]: .*valid num",
    ),
    "predictions of text": (
        lambda value: value["quality"]["predictions"].__setitem__(0, "1"),
        "texts as predictions or labels without a kind",
    ),
    "predictions that are objects": (
        lambda value: value["quality"].update(predictions=[{}]),
        "predictions.0.: expected a number",
    ),
    "metric of texts": (
        lambda value: value["quality"]["metrics"].update(exact_match=0.5),
        "exact_match is a metric of answers or rankings",
    ),
    "a length of text": (lambda value: first(value)["workload"].update(length="long"), "workload.length"),
    "an unknown scenario": (lambda value: first(value)["workload"].update(scenario="x"), "workload.scenario"),
    "an unknown setting": (lambda value: value["settings"]["plan"].update(round=1), "settings.plan.*round"),
    "a lone surrogate": (lambda value: value["engine"].update(name="\ud800x"), "not UTF-8 text"),
}
CONTRADICTIONS: dict[str, tuple[Damage, str]] = {
    "an accuracy that the predictions do not give": (
        lambda value: value["quality"].update(value=0.5, metrics={"accuracy": 0.5}, interval=[0.2, 0.8]),
        "accuracy is 0.5, but its predictions and labels give 0.",
    ),
    "a metric that the predictions do not give": (
        lambda value: value["quality"]["metrics"].update(f1=0.123),
        "f1 is 0.123, but its predictions",
    ),
    "another value in the metrics": (
        lambda value: value["quality"]["metrics"].update(accuracy=0.5),
        "quality.value is 0.*metrics give 0.5",
    ),
    "an unknown metric": (
        lambda value: value["quality"].update(metric="f2"),
        "unknown metric 'f2'. Known: acc",
    ),
    "an interval that does not contain its value": (
        lambda value: value["quality"].update(interval=[0.0, 0.1]),
        "of quality does not contain its value",
    ),
    "an interval that is too narrow": (
        lambda value: value["quality"].update(interval=[value["quality"]["value"]] * 2),
        f"end of the interval of accuracy is .* but {N} rows give",
    ),
    "a prediction less": (lambda value: value["quality"]["predictions"].pop(), "19 predictions of 20 rows"),
    "labels without predictions": (
        lambda value: value["quality"].update(predictions=[]),
        "0 predictions of",
    ),
    "more rows": (lambda value: value["quality"].update(n=40), "predictions of 40 rows"),
    "no rows": (lambda value: value["quality"].update(n=0), "quality.n is 0"),
    "half a class": (lambda value: value["quality"]["labels"].__setitem__(0, 0.5), "labels are not classes"),
    "no blocks": (lambda value: first(value).update(blocks_s=[]), "single-stream 1xreal: "),
    "an empty block": (lambda value: first(value)["blocks_s"].append([]), "but its samples give|no samples"),
    "a negative sample": (
        lambda value: replace_block(value, [[-1.0]] * 4),
        "latencies from -1.0 to -1.0 s: expected",
    ),
    "no time": (lambda value: replace_block(value, [[0.0]] * 4), "latencies from 0.0 to 0.0 s"),
    "a denormal time": (lambda value: replace_block(value, [[5e-324]] * 4), "latencies from 5e-324 to"),
    "a round too few": (
        lambda value: first(value)["rounds"].pop(),
        "rounds: expected 4 entries, one per block, got 3",
    ),
    "a round twice": (
        lambda value: first(value).update(rounds=[0, 1, 1, 2]),
        "rounds: expected rising numbers",
    ),
    "examples of a block too many": (
        lambda value: first(value).update(examples=[5] * 5),
        "throughput_per_s|examples: expected 4 entries",
    ),
    "more examples than queries": (
        lambda value: first(value).update(examples=[6, 5, 5, 5]),
        "throughput|examples",
    ),
    "a block shorter than its samples": (
        lambda value: first(value).update(elapsed_s=[1e-6] * 4),
        "elapsed_s of a block is",
    ),
    "another median": (
        lambda value: first(value)["statistics"]["latency_s"].update(p50=1.0),
        "p50 of latency_s is 1.0, but its",
    ),
    "a percentile of too few samples": (
        lambda value: first(value)["statistics"]["latency_s"].update(p99=1.0),
        "p99 of latency_s is 1.0.*None",
    ),
    "another throughput": (
        lambda value: first(value)["statistics"].update(throughput_per_s=1.0),
        "throughput_per_s is 1.0, but its",
    ),
    "a workload twice": (lambda value: value["workloads"].append(first(value)), "duplicate workload single-"),
    "no single queries": (lambda value: value["workloads"].pop(0), "single-stream 1xreal is missing"),
    "a rate without arrivals": (
        lambda value: first(value)["workload"].update(rate_per_s=5.0),
        "rate_per_s is 5.0",
    ),
    "energy without a value": (
        lambda value: energy(value).update(joules_per_example=None),
        "energy: expected joules_per_example and no reason",
    ),
    "energy of no source": (
        lambda value: energy(value).update(source="none"),
        "expected a reason, as its source is none",
    ),
    "a reversed interval of energy": (
        lambda value: energy(value).update(interval=[1, 0]),
        "does not contain its",
    ),
    "energy that the windows do not give": (
        lambda value: energy(value).update(joules_per_example=1.0, interval=None),
        "but its windows give 0.0",
    ),
    "a window that does not agree": (
        lambda value: energy(value)["windows"][0].update(joules=1.0),
        "joules_per_example of a window is",
    ),
    "no windows": (lambda value: energy(value).update(windows=[]), "energy needs windows"),
    "net energy that idle does not give": (
        lambda value: energy(value).update(net=0.001),
        "net energy is 0.001",
    ),
    "negative idle power": (
        lambda value: energy(value)["idle"].update(watts=-1, interval=None),
        "watts is -1",
    ),
    "flags without a failed gate": (
        lambda value: value.update(flags=["host-idle"]),
        "but the failed gates are",
    ),
    "a failed gate without a flag": (lambda value: value["gates"][0].update(passed=False), "flags are"),
    "an unknown gate": (lambda value: value["gates"][0].update(name="x"), "unknown gate 'x'"),
    "a gate twice": (lambda value: value["gates"].append(value["gates"][0]), "duplicate gate steady-rounds"),
    "a gate of nothing measured": (
        lambda value: value["gates"][0].update(workload="offline 8xreal"),
        "which was not measured",
    ),
    "no name": (lambda value: value["engine"].update(name=" "), "engine.name is empty"),
    "an unknown variant": (lambda value: value["engine"].update(variant="fp33"), "engine.variant: "),
    "a precision that the variant is not": (
        lambda value: value["engine"].update(precision="int8"),
        "engine.precision is int8, but its variant is fp32",
    ),
    "negative weights": (lambda value: value["engine"].update(weight_remaining=-1), "weight_remaining is -1"),
    "more heads than there were": (
        lambda value: value["engine"]["structure"]["heads"].__setitem__(0, 13),
        "heads: expected 0 to 12 per layer",
    ),
    "layers without heads": (
        lambda value: value["engine"]["structure"].update(layers=7),
        "heads: expected 7 numbers, one per layer, got 6",
    ),
    "fewer numbers than layers": (
        lambda value: value["engine"]["structure"].update(numbers=[1, 2, 3]),
        "numbers: expected 6 rising numbers from 1",
    ),
    "numbers of layers that do not rise": (
        lambda value: value["engine"]["structure"].update(numbers=[1, 2, 3, 4, 5, 5]),
        "numbers: expected 6 rising numbers from 1",
    ),
    "an exit after a layer that was dropped": (
        lambda value: value["engine"]["structure"].update(numbers=[1, 2, 3, 10, 11, 12], exits=[2, 4]),
        "exits: the engine has no layer 4",
    ),
    "an unknown way to drop layers": (
        lambda value: value["engine"].update(drop_layers=["middle"]),
        "drop_layers: unknown strategy 'middle'",
    ),
    "a sparsity that its counts do not give": (
        lambda value: value["engine"].update(sparsity={"share": 0.9, "zeros": 1, "of": 2}),
        "share: expected 1 / 2",
    ),
    "no memory": (lambda value: value["memory"].update(host_peak_bytes=-1), "host_peak_bytes is -1"),
    "a start that is no time": (lambda value: value.update(started="yesterday"), "'yesterday' is not a time"),
    "a start in another zone": (
        lambda value: value.update(started="2026-11-21T00:00:00+02:00"),
        "not in UTC",
    ),
    "an escape sequence in a name": (
        lambda value: value["engine"].update(name="\x1b]0;title\x07\x1b[31mred"),
        "a text has control characters",
    ),
    "an escape sequence in a detail": (
        lambda value: value["gates"][0].update(detail="a\\\x1b[2J"),
        "a text has control characters",
    ),
    "text from right to left": (
        lambda value: value["engine"].update(name="a\u202eb"),
        "a text has control characters",
    ),
    "an empty session": (lambda value: value.update(session=""), "session is empty"),
    "deeper than the encoder": (lambda value: value["settings"].update(mean_depth=7.0), "mean_depth is 7.0"),
}


def replace_block(value: Any, blocks_s: list[list[float]]) -> None:
    first(value).update(blocks_s=blocks_s, statistics=None)


@pytest.mark.parametrize("name", [*TYPES, *CONTRADICTIONS])
def test_a_result_that_cannot_be_trusted_is_refused_in_one_line(name: str, tmp_path: Path) -> None:
    damage, message = {**TYPES, **CONTRADICTIONS}[name]
    value = result()
    damage(value)
    path = tmp_path / "r.json"
    path.write_text(json.dumps(value).replace('"1e999"', "1e999"))
    with pytest.raises(ArtifactError, match=message) as caught:
        results.read([tmp_path])
    (line,) = str(caught.value).splitlines()
    assert line.startswith(str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 200_000, "nested too deeply"),
        ('{"engine":' * 100_000, "nested too deeply"),
        ('{"schema": 5, "engine": {}, "engine": {}}', "duplicate key 'engine'"),
        ('{"engine": "\\u0000', "cannot be read"),
        ("", "Expecting value"),
        (b'{"engine": "\xff"}', "not UTF-8 text"),
    ],
)
def test_text_that_is_not_json_is_refused(text: str | bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ArtifactError, match=message) as caught:
        results.read([tmp_path])
    assert len(str(caught.value).splitlines()) == 1


def test_pipes_and_devices_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ArtifactError, match=r"pipe.json is not a regular file"):
        results.read([tmp_path])
    (tmp_path / "pipe.json").unlink()
    (tmp_path / "zero.json").symlink_to("/dev/zero")
    with pytest.raises(ArtifactError, match=r"zero.json is not a regular file"):
        results.read([tmp_path])
    (tmp_path / "zero.json").unlink()
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(ArtifactError, match=r"folder.json"):
        results.read([tmp_path])


def test_two_results_of_one_id_are_refused_unless_they_are_equal(tmp_path: Path) -> None:
    value = result()
    (tmp_path / "a.json").write_text(json.dumps(value))
    (tmp_path / "b.json").write_text(json.dumps(value))
    assert len(results.find([tmp_path, tmp_path])) == 1
    value["engine"]["digest"] = "f" * 64
    (tmp_path / "b.json").write_text(json.dumps(value))
    with pytest.raises(ArtifactError, match=r"b.json: duplicate id .*, also in .*a.json"):
        results.find([tmp_path])


@pytest.mark.parametrize(
    "metric",
    [name for name, row in METRICS.items() if row.of_classes and not row.of_tags and not row.of_scores],
)
def test_every_metric_is_compared_with_the_predictions(metric: str, tmp_path: Path) -> None:
    value = result()
    scored = value["quality"]
    scored["metrics"][metric] = METRICS[metric](scored["labels"], scored["predictions"])
    if METRICS[metric].of_reference:
        scored["reference"] = {"name": "reference", "digest": "0" * 64}
        scored["metrics"] = {metric: scored["metrics"][metric]}
        scored["metric"] = metric
    (tmp_path / "r.json").write_text(json.dumps(value))
    assert results.find([tmp_path])
    scored["metrics"][metric] -= 0.01
    (tmp_path / "r.json").write_text(json.dumps(value))
    with pytest.raises(ArtifactError):
        results.find([tmp_path])


def test_a_result_is_read_as_it_was_written(tmp_path: Path) -> None:
    runs = [simulated_results.run(number, n=N, rounds=4, queries=70) for number in range(16)]
    for run in runs:
        results.save(run, tmp_path)
    assert sorted(results.find([tmp_path]), key=lambda run: run.id) == sorted(runs, key=lambda run: run.id)


def test_texts_are_written_printable_and_backslashes_as_they_are(tmp_path: Path) -> None:
    run = simulated_results.run(0, n=N, rounds=4, queries=5)
    detail = "cannot open \\new\nand \x1b[31mred"
    failure = Failure("f", "", FailedEngineRecord("e\x07"), run.host, "s", detail)
    results.save(failure, tmp_path)
    (saved,) = results.failures([tmp_path])
    assert (saved.name, saved.failure) == ("e\\x07", "cannot open \\new and \\x1b[31mred")


def test_a_result_that_contradicts_itself_is_not_written(tmp_path: Path) -> None:
    run = simulated_results.run(0, n=N, rounds=4, queries=5)
    wrong = replace(run, quality=replace(run.quality, value=0.99))
    with pytest.raises(ArtifactError, match="cannot be saved: quality.value is 0.99"):
        results.save(wrong, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 99}, "expected schema 5, got 99"),
        ({"failure": None}, "failure: expected a valid string"),
        ({"failure": " "}, "failure is empty"),
        ({"engine": "demo-dead"}, "engine: expected an object"),
        ({"engine": {}}, "engine.name: missing"),
        ({"host": None}, "host: expected an object"),
        ({"id": 1}, "id: expected a valid string"),
        ({"started": "x"}, "'x' is not a time"),
    ],
)
def test_a_damaged_failure_is_refused_in_one_line(
    tmp_path: Path, change: dict[str, object], message: str
) -> None:
    path = tmp_path / "f.json"
    path.write_text(json.dumps(FAILURE))
    assert [failure.failure for failure in results.failures([tmp_path])] == ["it died"]
    path.write_text(json.dumps({**FAILURE, **change}))
    with pytest.raises(ArtifactError, match=message) as caught:
        results.find([tmp_path])
    assert str(caught.value).startswith(str(path))


def test_a_failure_is_read_as_it_was_written(tmp_path: Path) -> None:
    failure = Failure("f", "", FailedEngineRecord("e", "t"), Host("h"), "s", "cannot open [/dev/nvidia0]")
    results.save(failure, tmp_path)
    assert results.failures([tmp_path]) == [failure]


def test_facts_that_were_not_measured_may_be_missing(tmp_path: Path) -> None:
    """The first results had no gates, elapsed times, structure or lengths; shared ones have no rows."""
    value = result()
    del value["gates"]
    for key in ("structure", "exits", "max_length", "regime", "model"):
        del value["engine"][key]
    for workload in value["workloads"]:
        for key in ("elapsed_s", "examples", "statistics"):
            del workload[key]
        del workload["workload"]["rate_per_s"]
    value["quality"] |= {"predictions": [], "labels": []}
    (tmp_path / "old.json").write_text(json.dumps(value))
    (run,) = results.find([tmp_path])
    assert (run.gates, run.workloads[0].elapsed_s, run.quality.labels) == ([], None, [])


def test_committed_results_are_read() -> None:
    folders = {path.parent for path in (ROOT / "docs" / "results").glob("**/results/*.json")}
    assert folders
    for folder in folders:
        runs, failed = results.read([folder])
        assert len(runs) + len(failed) == len(list(folder.glob("*.json")))


def test_facts_are_what_a_file_can_hold() -> None:
    reported = {"a": (1, 2), "b": [1, 0.5], "c": {"x": 1}, "d": {"x": "y"}, "e": ["x", None], "f": None}
    assert results.facts(reported) == {
        "a": [1, 2], "b": [1, 0.5], "c": {"x": 1.0}, "d": "{'x': 'y'}", "e": ["x", "None"], "f": None,
    }  # fmt: skip


def test_percentiles_are_refused_below_their_counts() -> None:
    assert latency_summary([[0.1] * 63])["p90"] is None
    assert latency_summary([[0.1] * 64])["p90"] == 0.1
    assert latency_summary([[0.1] * 661])["p99"] is None
    assert latency_summary([[number / 1000 for number in range(662)]])["p99"] == 0.655


def test_the_documented_schema_has_every_field_of_a_workload() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    (schema,) = re.findall(r"^- `results/ID\.json`.*?(?=^- )", text, re.MULTILINE | re.DOTALL)
    (workload,) = re.findall(r"workloads\[\{.*?\}\], memory", schema, re.DOTALL)
    written = {*first(result()), *(field.name for field in fields(WorkloadResult))}
    assert [name for name in sorted(written) if re.search(rf"\b{name}\b", workload) is None] == []
