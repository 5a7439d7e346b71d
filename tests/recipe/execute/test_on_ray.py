"""Cells on a Ray cluster of two nodes on this machine."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from effx.artifacts import Checkpoint
from effx.errors import UsageError
from effx.recipe import load, run
from effx.recipe.execute.executors import LocalExecutor
from effx.recipe.execute.store import CellStore

pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("ignore")  # of Ray, when it starts and stops
RECIPE = """
tasks: {{sst2: {{data: {data}}}}}
models: {{tiny: {model}}}
training: {{max_steps: 3, precision: fp32}}
tickets: {{levels: [20, 40], kinds: [winning], seeds: 2, max_length: 32}}
budgets: {{threads: 1}}
"""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[3]))  # the nodes run this effx
    from ray.cluster_utils import Cluster

    ray_cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    yield ray_cluster
    ray_cluster.shutdown()


@pytest.fixture
def recipe(tmp_path: Path, encoders: dict[str, Path], rows_folder: Path) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(RECIPE.format(data=rows_folder, model=encoders["bert"]))
    return path


def weights(workspace: Path) -> dict[str, str]:
    """Name of a checkpoint -> digest of its weights."""
    folders = Checkpoint.find_all([workspace / "tickets" / "sst2-tiny" / "checkpoints"])
    return {folder.name: Checkpoint.open(folder).manifest.files["model.safetensors"] for folder in folders}


@pytest.mark.slow
def test_a_search_survives_the_loss_of_a_node_and_equals_the_local_one(
    cluster: Any, recipe: Path, tmp_path: Path
) -> None:
    from effx.recipe.execute.on_ray import RayExecutor

    here = load(recipe, workspace=tmp_path / "local")
    assert run(here, executor=LocalExecutor(here.budgets)).exit_code == 0

    other = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    there = load(recipe, workspace=tmp_path / "ray")
    removed: list[int] = []

    def lose_a_node() -> None:
        while True:
            events = [line["event"] for line in CellStore(tmp_path / "ray").journal()]
            if events.count("done") >= 1 and events.count("begun") - events.count("done") == 2:
                break
            time.sleep(0.05)
        cluster.remove_node(other)
        removed.append(len(events))

    executor = RayExecutor(there, cluster.address)
    assert executor.slots == 2
    thread = threading.Thread(target=lose_a_node)
    thread.start()
    result = run(there, executor=executor)
    thread.join(60)
    assert removed
    assert {entry.state for entry in result.plan.entries.values()} == {"done"}

    lines = CellStore(tmp_path / "ray").journal()
    begun = [line["key"] for line in lines if line["event"] == "begun"]
    done = [line["key"] for line in lines if line["event"] == "done"]
    assert sorted(set(begun)) == sorted(done)  # each was done, and once
    assert len(begun) == len(done) + 1  # one had been begun on the node that was lost
    assert weights(tmp_path / "ray") == weights(tmp_path / "local")
    assert len(weights(tmp_path / "ray")) == 6
    tables = [tmp_path / where / "tickets/sst2-tiny/table.json" for where in ("local", "ray")]
    assert tables[0].read_bytes() == tables[1].read_bytes()


@pytest.mark.slow
def test_a_node_that_does_not_see_the_workspace_is_named(
    cluster: Any, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from effx.recipe.execute import on_ray

    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    read = load(recipe, workspace=tmp_path / "w")
    look = on_ray._look

    def elsewhere(sign: str, *rest: Any) -> dict[str, Any]:
        """As a node answers on which the path leads to another folder."""
        return look(sign.replace("/w/", "/elsewhere/"), *rest)

    monkeypatch.setattr(on_ray, "_look", elsewhere)
    with pytest.raises(UsageError, match="cannot read and write the workspace .*mounts at the same path"):
        on_ray.RayExecutor(read, cluster.address)
    assert not list((tmp_path / "w").glob(".seen*"))


@pytest.mark.parametrize(
    ("address", "message"),
    [("127.0.0.1:1", "no cluster answers .*refused.*ray start --head"), ("10.0.0.1", "expected HOST:PORT")],
)
def test_a_missing_cluster_is_reported(recipe: Path, tmp_path: Path, address: str, message: str) -> None:
    from effx.recipe.execute.on_ray import RayExecutor

    with pytest.raises(UsageError, match=message):
        RayExecutor(load(recipe, workspace=tmp_path / "w"), address)


@pytest.mark.slow
def test_more_threads_than_any_node_has_are_refused(cluster: Any, recipe: Path, tmp_path: Path) -> None:
    from effx.recipe.execute.on_ray import RayExecutor

    read = load(recipe, ["budgets.threads=64"], workspace=tmp_path / "w")
    with pytest.raises(UsageError, match="no node of the cluster has so many processors"):
        RayExecutor(read, cluster.address)


@pytest.mark.slow
def test_nothing_else_runs_on_the_node_of_a_measurement(
    cluster: Any, tmp_path: Path, encoders: dict[str, Path], rows_folder: Path
) -> None:
    """Two cells that measure and one that trains, on two nodes of one host: no two of them run together."""
    from effx.recipe.execute.on_ray import RayExecutor

    cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"tasks: {{sst2: {{data: {rows_folder}}}}}\nmodels: {{tiny: {encoders['bert']}}}\n"
        "training: {max_steps: 2}\nregimes: {full: {max_length: 32}, frozen: {max_length: 32}}\n"
        "variants: [fp32, int8]\n"
        'workloads: {grid: [], rounds: 3, block_queries: 24, window_s: 0.2, meter: "model:10"}\n'
        "budgets: {threads: 1}\n"
    )
    read = load(path, workspace=tmp_path / "w")
    result = run(read, executor=RayExecutor(read, cluster.address))
    assert {entry.state for entry in result.plan.entries.values()} == {"done"}
    lines = CellStore(tmp_path / "w").journal()
    open_now: set[str] = set()
    for line in lines:  # a cell is begun when it has its host; see effx/recipe/execute/settle.py
        if line["event"] == "begun":
            measuring = {cell for cell in open_now if cell.startswith("profile") or ".int8." in cell}
            assert not measuring
            if line["cell"].startswith("profile") or ".int8." in line["cell"]:
                assert not open_now
            open_now.add(line["cell"])
        elif line["event"] == "done":
            open_now.discard(line["cell"])
