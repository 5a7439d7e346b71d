"""Cells as Ray tasks.

    driver ── task per cell, with processors, GPUs and memory ── node: the cell in a worker process

Ray begins a task again elsewhere if its node or worker was lost; nothing is left unfinished, because a
cell appears in the workspace in one rename. Every node must see the workspace, the rows and the models at
the same path; this is checked before anything is begun.

Measurements take all processors of their node, so that Ray runs nothing else there, and the host's
turnstile (:mod:`effx.host.locks`) keeps off the cells of other runs. They run on the node that has
the custom resource ``effx_profile``, else on the driver's.
"""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import socket
from pathlib import Path
from typing import Any

import effx
from effx import files
from effx.errors import UsageError, need, one_line
from effx.host import identity
from effx.recipe.execute.process import WorkerProcess
from effx.recipe.execute.protocol import CellOutcome, CellSpec
from effx.recipe.execute.store import CellStore
from effx.recipe.language.recipe import Recipe
from effx.specs.stages import STAGES

_MEASURING = "effx_profile"
_CHECK_S = 60.0
_CONNECT_S = 10.0


class RayExecutor:
    """A Ray cluster: that at an address, else of RAY_ADDRESS or this machine, else a new one.

    Raises:
        UsageError: no cluster answers, a node does not see a folder, or runs another version of effx.
        MissingExtraError: Ray is not installed.
    """

    shows_progress, queues = False, True

    def __init__(self, recipe: Recipe, address: str | None = None) -> None:
        need("ray", "ray")
        import ray

        self._ray, self._recipe = ray, recipe
        self._started = not ray.is_initialized()
        self._refs: dict[str, Any] = {}
        if self._started:
            _connect(ray, address)
        try:
            nodes = [node for node in ray.nodes() if node["Alive"]]
            self._node = self._measuring(nodes)
            self._cpus = {node["NodeID"]: int(node["Resources"].get("CPU", 0)) for node in nodes}
            fewest = min((count for count in self._cpus.values() if count), default=1)
            threads = recipe.budgets.threads or fewest
            self.threads: int | None = threads
            if threads > max(self._cpus.values()):
                raise UsageError(
                    f"budgets.threads = {threads}: no node of the cluster has so many processors; the "
                    f"largest has {max(self._cpus.values())}."
                )
            self.slots = sum(max(1, count // threads) for count in self._cpus.values() if count)
            self.host = self._check(nodes)
        except BaseException:
            self.close()
            raise

    def start(self, spec: CellSpec) -> None:
        budgets = self._recipe.budgets
        options: dict[str, Any] = {
            "num_cpus": self.threads,
            "num_gpus": budgets.gpus if STAGES[spec.stage].gpu else 0,
            "max_retries": budgets.retries,
            "name": spec.id,
        }
        if budgets.memory_bytes is not None:
            options["memory"] = budgets.memory_bytes
        if spec.alone:
            options["scheduling_strategy"] = self._on(self._node)
        if STAGES[spec.stage].measures:
            options["num_cpus"] = self._cpus[self._node]
        self._refs[spec.key] = self._ray.remote(_do).options(**options).remote(spec)

    def poll(self) -> dict[str, CellOutcome]:
        if not self._refs:
            return {}
        keys = {ref: key for key, ref in self._refs.items()}
        ready, _ = self._ray.wait(list(keys), num_returns=len(keys), timeout=0)
        ended: dict[str, CellOutcome] = {}
        for ref in ready:
            key = keys[ref]
            del self._refs[key]
            try:
                ended[key] = self._ray.get(ref)
            except self._ray.exceptions.RayError as error:
                reason = one_line(error, 300)
                ended[key] = CellOutcome("failed", f"lost on Ray ({type(error).__name__}: {reason})")
        return ended

    def stop(self, key: str | None = None) -> None:
        for name in [key] if key else list(self._refs):
            ref = self._refs.pop(name, None)
            if ref is not None:
                with contextlib.suppress(self._ray.exceptions.RayError):
                    self._ray.cancel(ref, force=True)

    def close(self) -> None:
        self.stop()
        if self._started and self._ray.is_initialized():
            self._ray.shutdown()

    def _on(self, node: str, *, soft: bool = False) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(node, soft=soft)

    def _measuring(self, nodes: list[dict[str, Any]]) -> str:
        """Return the node that measures."""
        named = [node["NodeID"] for node in nodes if node["Resources"].get(_MEASURING)]
        here = self._ray.get_runtime_context().get_node_id()
        able = [node["NodeID"] for node in nodes if node["Resources"].get("CPU", 0) >= 1]
        if not able:
            raise UsageError("Ray: no node of the cluster has a processor for tasks.")
        if named:
            return str(sorted(named)[0])
        return str(here if here in able else sorted(able)[0])

    def _check(self, nodes: list[dict[str, Any]]) -> str:
        """Check every node; return the id of the host that measures."""
        workspace = CellStore(self._recipe.folder)
        workspace.create()
        folder = workspace.folder.resolve()
        wanted = [str(folder), *self._folders()]
        token = secrets.token_hex(8)
        sign = folder / f".seen-{token}"
        files.write_atomic(sign, token.encode())
        try:
            look = self._ray.remote(_look)
            refs = {
                node["NodeID"]: look.options(num_cpus=0, scheduling_strategy=self._on(node["NodeID"])).remote(
                    str(sign), token, wanted, node["NodeID"]
                )
                for node in nodes
            }
            answers = self._answers(refs, nodes)
            blind = [
                answer["name"]
                for node, answer in answers.items()
                if not (answer["sees"] and (folder / f".seen-{token}-{node}").exists())
            ]
        finally:
            for path in folder.glob(f".seen-{token}*"):
                path.unlink(missing_ok=True)
        if blind:
            raise UsageError(
                f"Ray: {', '.join(sorted(blind))} cannot read and write the workspace {folder}. Choose a "
                "folder on a file system that every node mounts at the same path.",
                settings="workspace",
            )
        for answer in answers.values():
            if answer["missing"]:
                raise UsageError(
                    f"Ray: {answer['name']} does not see {', '.join(answer['missing'])}. Every node must "
                    "see rows and models at the same path."
                )
        expected = _software()
        for answer in answers.values():
            if answer["software"] != expected:
                there, here = (
                    ", ".join(f"{key} {value}" for key, value in versions.items())
                    for versions in (answer["software"], expected)
                )
                raise UsageError(
                    f"Ray: {answer['name']} runs {there}; this is {here}. They must be the same."
                )
        return str(answers[self._node]["host"])

    def _answers(self, refs: dict[str, Any], nodes: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        names = {node["NodeID"]: node["NodeManagerHostname"] for node in nodes}
        ready, late = self._ray.wait(list(refs.values()), num_returns=len(refs), timeout=_CHECK_S)
        of = {ref: node for node, ref in refs.items()}
        if late:
            silent = ", ".join(sorted(names[of[ref]] for ref in late))
            raise UsageError(f"Ray: no answer from {silent} in {_CHECK_S:g} s. Is effx installed there?")
        try:
            return {of[ref]: self._ray.get(ref) for ref in ready}
        except self._ray.exceptions.RayError as error:
            reason = one_line(error, None)[-300:]
            raise UsageError(f"Ray: a node cannot run effx ({reason}). Install it on every node.") from error

    def _folders(self) -> list[str]:
        sources = [task.data for task in self._recipe.tasks] + [model.source for model in self._recipe.models]
        return [str(Path(source).resolve()) for source in sources if source and Path(source).is_dir()]


def _connect(ray: Any, address: str | None) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        if address is not None:
            host, _, port = address.rpartition(":")
            if not host or not port.isdigit():
                raise UsageError(f"Ray address {address}: expected HOST:PORT, e.g. 10.0.0.1:6379.")
            socket.create_connection((host, int(port)), _CONNECT_S).close()  # Ray itself tries for minutes
        ray.init(address=address, log_to_driver=False, configure_logging=False)
    except (OSError, ValueError, RuntimeError) as error:
        reason = one_line(error, 300)
        at = f" at {address}" if address else ""
        raise UsageError(f"Ray: no cluster answers{at} ({reason}). Start one: ray start --head") from error


def _do(spec: CellSpec) -> CellOutcome:
    """Do a cell on a node; if the Ray worker dies, the cell's process sees its input end and stops."""
    worker = WorkerProcess(spec)
    try:
        return worker.wait()
    finally:
        worker.stop()


def _look(sign: str, token: str, folders: list[str], node: str) -> dict[str, Any]:
    """Return what a node sees of the workspace, and which versions it runs."""
    sees = False
    with contextlib.suppress(OSError):
        sees = Path(sign).read_text() == token
        if sees:
            Path(f"{sign}-{node}").write_text(node)
    host = identity.host()
    return {
        "sees": sees,
        "missing": [folder for folder in folders if not Path(folder).is_dir()],
        "software": _software(),
        "host": host.id,
        "name": f"{host.hostname} (node {node[:8]})",
    }


def _software() -> dict[str, str]:
    return {"effx": effx.__version__, "Python": ".".join(platform.python_version_tuple()[:2])}
