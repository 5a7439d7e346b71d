"""What is damaged, and the command that reads it.

A target writes a valid folder once. For each mutant the folder is copied, one file is replaced, and the
command runs in the copy. ``allowed`` lists what a command may accept: keys and rules, with the reason.
"""

from __future__ import annotations

import fnmatch
import gzip
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from effx import data
from effx.artifacts import Engine
from effx.engines import mock
from effx.results import save
from effx.specs.tasks import TASKS
from tests.analysis import simulated_results
from tests.fuzz.mutations import Mutant, mutants

Damage = Callable[[Path], None]
"""Damages a copy of a target's folder."""
ROWS = [{"sentence": f"{'good' if n % 2 else 'bad'} film number {n}", "label": n % 2} for n in range(24)]


@dataclass(frozen=True)
class Case:
    """One damaged folder."""

    target: str
    name: str
    """Key and rule."""
    key: str
    rule: str
    damage: Damage


@dataclass(frozen=True)
class Target:
    """A kind of file that comes from others."""

    name: str
    write: Callable[[Path], None]
    """Writes the valid folder."""
    arguments: tuple[str, ...]
    """The command, run in the folder."""
    cases: Callable[[Path], Iterator[Case]]
    """Takes the valid folder."""
    outputs: tuple[str, ...] = ()
    """Files and folders that the command may leave behind when it succeeds."""
    failures: str = ""
    """A folder in which the command records what failed, if it is one of several: exit code 1, and a line
    ``NAME: REASON`` instead of ``effx: REASON``."""
    allowed: Mapping[str, str] = field(default_factory=dict)
    """``KEY RULE``, a pattern of fnmatch -> why exit code 0 is right."""

    def accepts(self, case: Case) -> bool:
        """Return whether the command may accept a case."""
        return any(fnmatch.fnmatchcase(f"{case.key} {case.rule}", pattern) for pattern in self.allowed)


def json_cases(
    target: str, folder: Path, file: str, seal: Callable[[Path, Any], Any] | None = None
) -> Iterator[Case]:
    """Yield the cases of one JSON file."""
    document = json.loads((folder / file).read_bytes())
    for mutant in mutants(document):
        yield Case(target, f"{file}: {mutant.key} {mutant.rule}", mutant.key, mutant.rule,
                   _json_damage(file, mutant, seal))  # fmt: skip
    yield from file_cases(target, folder, file)


def _json_damage(file: str, mutant: Mutant, seal: Callable[[Path, Any], Any] | None) -> Damage:
    def damage(copy: Path) -> None:
        changed = mutant
        if seal is not None and "digest" in mutant.document and mutant.path != ("digest",):
            sealed = dict(mutant.document)
            sealed["digest"] = seal(copy, mutant.lenient())
            changed = Mutant(mutant.path, mutant.rule, sealed)
        (copy / file).write_text(changed.text())

    return damage


def file_cases(target: str, folder: Path, file: str) -> Iterator[Case]:
    """Yield the cases of any file: damaged, and not a regular file."""
    content = (folder / file).read_bytes()

    def case(rule: str, damage: Damage) -> Case:
        return Case(target, f"{file}: file {rule}", "file", rule, damage)

    def replaced(new: bytes) -> Damage:
        return lambda copy: (copy / file).write_bytes(new) and None

    def other(make: Callable[[Path], object]) -> Damage:
        def damage(copy: Path) -> None:
            (copy / file).unlink()
            make(copy / file)

        return damage

    yield case("empty", replaced(b""))
    yield case("NUL", replaced(b"\0" * 100))
    yield case("not UTF-8", replaced(content[:20] + b"\xff\xfe\xc0" + content[20:]))
    for count in range(1, 8):
        yield case(f"cut at {count}/8", replaced(content[: len(content) * count // 8]))
    yield case("twice", replaced(content + content))
    yield case("byte order", replaced(content.decode("utf-8", "replace").encode("utf-16")))
    yield case("FIFO", other(os.mkfifo))
    yield case("/dev/zero", other(lambda path: path.symlink_to("/dev/zero")))
    yield case("loop", other(lambda path: path.symlink_to(path.name)))
    yield case("folder", other(Path.mkdir))
    yield case("missing", other(lambda path: None))


def _digest(leave_out: frozenset[str]) -> Callable[[Path, Any], str]:
    def digest(folder: Path, value: Any) -> str:
        sealed = {key: value[key] for key in value if key not in (*leave_out, "digest")}
        text = json.dumps(sealed, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    return digest


# ---- results


def _write_results(folder: Path) -> None:
    path = save(simulated_results.run(1, n=40, rounds=3, queries=10), folder / "results")
    path.rename(path.with_name("r.json"))


_NOT_STATED = {"* missing": "an optional key: nothing is claimed", "* null": "as missing"}


def _allow(reason: str, rules: Sequence[str], *keys: str) -> dict[str, str]:
    """Return the allowances of rules at keys; both are patterns of fnmatch."""
    return {f"{key} {rule}": reason for key in keys for rule in rules}


_OTHER_WORDS = ("empty", "absolute", "parent", "unknown", "text")
_RESULT_ALLOWS = {
    **_NOT_STATED,
    **_allow(
        "a description: nothing else states it", _OTHER_WORDS, "host.*", "engine.model", "engine.regime",
        "engine.parity.inputs", "engine.parity.measured_on", "quality.source", "gates.#.detail",
        "engine.made_elsewhere", "workloads.#.energy.net_reason",
        "workloads.#.energy.meter", "workloads.#.energy.reason", "settings.meter.name",
        "settings.device_memory_by", "settings.runtime.versions.*", "settings.*.details.*",
    ),
    **_allow("another name", ("unknown",), "id", "session", "engine.name", "engine.task",
             "engine.checkpoint.name"),
    **_allow(
        "measured or counted once: nothing else states it", ("large", "5"), "engine.parameters",
        "engine.size_bytes", "engine.parity.examples", "engine.parity.max_abs_diff", "host.cores",
        "host.memory_bytes", "memory.*", "settings.load_average", "settings.session_*",
        "settings.mean_tokens",
        "workloads.#.rounds.#", "workloads.#.energy.windows.#.integrated_joules",
        "workloads.#.energy.idle.seconds", "workloads.#.load", "settings.runtime.threads",
        "settings.mean_depth",
    ),
    **_allow("an uncertainty of the meter, which only the meter knows", ("large", "negative"),
             "*.interval.#", "*.net_interval.#"),
    **_allow("what was planned, not what was done", ("large", "5", "emptied", "one less", "list"),
             "settings.plan", "settings.plan.*"),
    **_allow("fewer facts or measurements", ("emptied", "one less", "list"), "workloads", "gates",
             "settings.runtime", "settings.runtime.*", "settings.meter.details", "*.conditions", "host.gpu"),
    **_allow("facts of any name", ("unknown key",), "*.conditions", "*.details", "settings.runtime.versions"),
    **_allow("the same number", ("float",), "quality.labels.#", "quality.predictions.#"),
    **_allow("scored in larger batches: nothing else states it", ("large",), "quality.workload.batch"),
    **_allow("a fact", ("true", "5"), "host.container", "host.virtual", "*.details.*", "*.conditions.*"),
}  # fmt: skip

# ---- sections

_SECTION = {
    "schema": 1, "title": "t", "text": "words", "source": "table.json",
    "charts": [{"title": "c", "interval": "95 %", "x": {"label": "x", "unit": "s", "log": False},
                "y": {"label": "y", "unit": None, "log": True},
                "series": [{"name": "s", "points": [{"x": 1, "y": 2.5, "low": 2.0, "high": 3.0,
                                                     "label": "p"}]}]}],
    "maps": [{"title": "m", "unit": "%", "corner": "layer", "rows": ["1", 2], "columns": ["a"],
              "values": [[0.5], [None]]}],
    "tables": [{"title": "t", "columns": [{"label": "a", "unit": "s"}], "rows": [["x"], [1.5]]}],
}  # fmt: skip


_SECTION_ALLOWS = {
    **_NOT_STATED,
    **_allow("another text", (*_OTHER_WORDS, "line break"), "*"),
    **_allow("another number or label", ("large", "negative", "5", "float", "fraction"), "*.x", "*.y",
             "*.rows.#*", "*.columns.#",
             "*.values.#.#", "*.low", "*.high"),
    **_allow("less or more of the section", ("emptied", "one less", "one more", "list"), "*"),
    **_allow("a logarithmic axis or not", ("true",), "*.log"),
}  # fmt: skip


def _write_section(folder: Path) -> None:
    _write_results(folder)
    (folder / "results" / "sections").mkdir()
    (folder / "results" / "sections" / "s.json").write_text(json.dumps(_SECTION))


# ---- engines


def _write_engine(folder: Path) -> None:
    _write_rows(folder)
    record = data.recorded(TASKS["sst2"], folder / "rows")
    mock.write_engine(folder / "engines" / "e", data=record, max_length=32, limit=64)


_ENGINE_ALLOWS = {
    **_NOT_STATED,
    **_allow("for other tools: the engine reads pad_token_id only", ("*",), "config.vocab_size",
             "config.max_position_embeddings", "config.model_type", "config.hidden_size",
             "config.num_hidden_layers", "config.num_attention_heads", "config.intermediate_size"),
    **_allow("another program wrote the file, and repeats a key", ("twice",), "config.pad_token_id"),
    **_allow("the same content in another encoding", ("byte order",), "config.file"),
    **_allow("a description: nothing else states it", _OTHER_WORDS, "name", "model", "regime",
             "parity.measured_on", "parity.inputs", "versions"),
    **_allow("another name", ("unknown",), "checkpoint.name"),
    **_allow("a class name; the graph answers with numbers", _OTHER_WORDS[1:], "task_definition.labels.#"),
    **_allow("a name of a column; which columns are read is printed", _OTHER_WORDS[1:],
             "task_definition.columns.#"),
    **_allow("one more score to compute", ("one more",), "task_definition.metrics"),
    **_allow("a mock graph has no layers", ("one less",), "structure.layers"),
    **_allow("a mock graph takes any inputs", ("one less",), "inputs"),
    **_allow("counted once: nothing else states it", ("large", "5"), "parameters", "parameters_removed",
             "parity.examples", "parity.max_abs_diff", "build_s", "calibration_rows"),
}  # fmt: skip


def _engine_cases(folder: Path) -> Iterator[Case]:
    seal = _digest(Engine.not_in_digest)
    yield from json_cases("engine", folder, "engines/e/engine.json", seal)
    for name in ("tokenizer.json", "config.json", mock.FILE):
        yield from file_cases("engine", folder, f"engines/e/{name}")
    yield from _folder_cases("engine", "engines/e")
    for case in json_cases("engine", folder, "engines/e/config.json"):
        yield Case("engine", case.name, f"config.{case.key}", case.rule, _relisted(case.damage, seal))


def _relisted(damage: Damage, seal: Callable[[Path, Any], str]) -> Damage:
    """Damage a file and write its new digest into the manifest."""

    def both(copy: Path) -> None:
        damage(copy)
        path = copy / "engines" / "e" / "engine.json"
        value = json.loads(path.read_bytes())
        config = copy / "engines" / "e" / "config.json"
        if config.is_file() and not config.is_symlink():
            value["files"]["config.json"] = hashlib.sha256(config.read_bytes()).hexdigest()
        value["digest"] = seal(copy, value)
        path.write_text(json.dumps(value))

    return both


def _folder_cases(target: str, name: str) -> Iterator[Case]:
    def case(rule: str, damage: Damage) -> Case:
        return Case(target, f"{name}: folder {rule}", "folder", rule, damage)

    yield case("unlisted file", lambda copy: (copy / name / "extra.txt").write_text("x") and None)
    yield case("unlisted folder", lambda copy: _filled(copy / name / "sub"))
    yield case("link", lambda copy: (copy / name / "link").symlink_to("/etc/passwd"))
    yield case("FIFO", lambda copy: os.mkfifo(copy / name / "pipe"))


def _filled(folder: Path) -> None:
    folder.mkdir()
    (folder / "file").write_text("x")


# ---- rows


def _write_rows(folder: Path) -> None:
    (folder / "rows").mkdir()
    text = "".join(json.dumps(row) + "\n" for row in ROWS)
    (folder / "rows" / "train.jsonl").write_text(text)
    (folder / "rows" / "validation.jsonl").write_text(text)


def _write_row_recipe(folder: Path) -> None:
    _write_rows(folder)
    recipe = {"tasks": {"mine": {"data": "rows"}}, "models": {"m": "demo"}}
    (folder / "r.yaml").write_text(json.dumps(recipe))


def _row_cases(folder: Path) -> Iterator[Case]:
    rest = "".join(json.dumps(row) + "\n" for row in ROWS[1:])
    for mutant in mutants(ROWS[0]):
        yield Case("rows", f"train.jsonl: {mutant.key} {mutant.rule}", mutant.key, mutant.rule,
                   _row_damage(f"{mutant.text()}\n{rest}"))  # fmt: skip
    yield from file_cases("rows", folder, "rows/train.jsonl")
    for rule, content in _tables().items():
        yield Case("rows", f"train: {rule}", "table", rule, _table_damage(rule, content))


def _row_damage(text: str) -> Damage:
    return lambda copy: (copy / "rows" / "train.jsonl").write_text(text) and None


def _tables() -> dict[str, bytes]:
    body = "".join(f"{row['sentence']},{row['label']}\n" for row in ROWS)
    packed = gzip.compress(("sentence,label\n" + body).encode())
    return {
        "two label columns .csv": ("sentence,label,label\n" + body.replace("\n", ",1\n")).encode(),
        "NUL .csv": ("sentence,label\n" + body + "a\0b,1\n").encode(),
        "ragged .csv": ("sentence,label\n" + body + "a,b,c,1\n").encode(),
        "open quote .csv": ("sentence,label\n" + body + '"a,1\n').encode(),
        "no rows .csv": b"sentence,label\n",
        "no columns .csv": b"\n\n\n",
        "one class .csv": b"sentence,label\n" + b"a,1\n" * 20,
        "not UTF-8 .csv": b"sentence,label\n" + body.encode() + b"\xff\xfe,1\n",
        "long field .csv": b"sentence,label\n" + b"x" * (2 << 20) + b",1\n" + body.encode(),
        "text label .csv": ("sentence,label\n" + body + "a,\x1b[2J\n").encode(),
        "cut gzip .csv.gz": packed[: len(packed) // 2],
        "changed gzip .csv.gz": packed[:30] + b"\xff\xff" + packed[32:],
        "not gzip .csv.gz": b"sentence,label\n" + body.encode(),
        "bomb .csv.gz": gzip.compress(b"sentence,label\n" + b"a" * (64 << 20)),
        "not parquet .parquet": b"PAR1" + b"\0" * 64 + b"PAR1",
    }


def _table_damage(rule: str, content: bytes) -> Damage:
    def damage(copy: Path) -> None:
        (copy / "rows" / "train.jsonl").unlink()
        (copy / "rows" / f"train{rule.split()[-1]}").write_bytes(content)

    return damage


_ROWS_ALLOW = {
    **_allow("another text", ("*",), "sentence"),
    **_allow("another class, or a number to predict; what was understood is printed",
             ("true", "text", "unknown", "absolute", "parent", "negative", "large", "beyond 64 bits",
              "fraction", "float"), "label"),
    **_allow("the same rows", ("twice", "byte order"), "file"),
    **_allow("a long text; a class name that is printed escaped", ("long field .csv", "text label .csv"),
             "table"),
}  # fmt: skip

# ---- recipes

_RECIPE = {
    "tasks": {"mine": {"data": "rows", "limit": 20}, "demo": {}},
    "models": {"m": "demo"},
    "seeds": [1, 2],
    "limit": 20,
    "training": {"epochs": 1, "batch_size": 8, "lr": 0.001},
    "regimes": {"full": {"max_length": 32}, "last": {"regime": "last-1", "layers": 1, "patience": 1}},
    "tokens": {"t": {"of": ["full"], "keep": 0.6}},
    "exits": {"e": {"of": ["full"], "rule": "entropy", "max_drop": 0.01}},
    "variants": ["fp32", "seq16", "tokens", "exit", {"variant": "int8", "of": ["full"]}],
    "backends": ["onnxruntime", {"backend": "torch", "device": "cpu"}],
    "calibration_rows": 16,
    "workloads": {"scenarios": ["offline"], "grid": ["1x16", "2x16"], "rounds": 3, "threads": 1},
    "budgets": {"total_s": 100, "threads": 1},
    "workspace": "w",
    "name": "n",
}


_RECIPE_ALLOWS = {
    **_allow("the default", ("null", "missing", "emptied", "list", "object"), "*"),
    **_allow(
        "another word, name or folder",
        (
            "5",
            "huge integer",
            "text",
            "true",
            "nan",
            "infinity",
            "1e400",
            "unknown",
            "absolute",
            "parent",
            "empty",
            "long",
        ),
        "name",
        "workspace",
        "models",
        "models.m",
        "tokens",
        "exits",
        "pruned",
    ),
    **_allow("the same number", ("text", "float"), "*"),
    **_allow("another number", ("large", "5", "fraction"), "*"),
    **_allow("more or less of the same", ("one more", "one less"), "*"),
}


def _write_recipe(folder: Path) -> None:
    _write_rows(folder)
    (folder / "r.yaml").write_text(json.dumps(_RECIPE))


def _recipe_cases(folder: Path) -> Iterator[Case]:
    yield from json_cases("recipe", folder, "r.yaml")


TARGETS: tuple[Target, ...] = (
    Target(
        "result", _write_results, ("recommend", "results"),
        lambda folder: json_cases("result", folder, "results/r.json"), allowed=_RESULT_ALLOWS,
    ),
    Target(
        "section", _write_section, ("report", "results", "-o", "report"),
        lambda folder: json_cases("section", folder, "results/sections/s.json"), outputs=("report",),
        allowed=_SECTION_ALLOWS,
    ),
    Target(
        "engine", _write_engine,
        ("profile", "engines", "--rounds", "3", "--grid", "none", "--limit", "4", "--meter", "none",
         "-o", "out"),
        _engine_cases, outputs=("out",), failures="out", allowed=_ENGINE_ALLOWS,
    ),
    Target("rows", _write_row_recipe, ("run", "r.yaml", "--dry-run"), _row_cases, allowed=_ROWS_ALLOW),
    Target("recipe", _write_recipe, ("run", "r.yaml", "--dry-run"), _recipe_cases, allowed=_RECIPE_ALLOWS),
)  # fmt: skip
"""The kinds that need no PyTorch."""


def copied(folder: Path, target: Path) -> Path:
    """Return a copy of a valid folder."""
    return Path(shutil.copytree(folder, target, symlinks=True))
