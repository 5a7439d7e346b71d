"""Coverage-guided fuzzing of the parsers, with atheris: any bytes at all give a value or an error of effx.

    pip install atheris
    python benchmarks/fuzz/parsers.py PARSER ARTIFACTS -max_total_time=600 CORPUS

PARSER: manifest, result, section, variant, levels, quantity, shape, recipe, csv, jsonl, onnx, trace.
ARTIFACTS is a folder with checkpoints, engines and results at any depth, such as the folder of a campaign of
tests.kills. Valid examples are written into the empty folder CORPUS first, so that the fuzzer begins with
inputs that are accepted. Further arguments are libFuzzer's. It stops at the first error that is not an
:class:`effx.errors.EffxError`.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import atheris

from effx import scratch

Parser = Callable[[bytes], object]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _file(name: str, data: bytes) -> Path:
    path = scratch.of_process() / name
    path.write_bytes(data)
    return path


# Each parser imports only what it needs: instrumenting every module of effx takes minutes on a busy machine.


def _manifest() -> Parser:
    from effx import records
    from effx.artifacts import Checkpoint, Engine
    from effx.errors import EffxError

    def parse(data: bytes) -> None:
        value = records.parse_json(data, Path("m.json"))
        for kind in (Engine, Checkpoint):
            with contextlib.suppress(EffxError):
                records.build(kind.manifest_type(), value, Path("m.json"))

    return parse


def _result() -> Parser:
    from effx.results import storage

    return lambda data: storage.open_run(_file("r.json", data))


def _section() -> Parser:
    from effx.report import sections

    return lambda data: sections.read([_file("s.json", data)])


def _variant() -> Parser:
    from effx.specs import variants

    return lambda data: variants.parse(_text(data))


def _levels() -> Parser:
    from effx.specs import levels

    return lambda data: levels.parse_levels(_text(data))


def _quantity() -> Parser:
    from effx.errors import EffxError
    from effx.specs import quantities

    parsers: tuple[Callable[[str], object], ...] = (
        quantities.DURATION.parse, quantities.SIZE.parse, quantities.ENERGY.parse, quantities.parse_share,
        quantities.parse_score, quantities.parse_confidence,
    )  # fmt: skip

    def parse(data: bytes) -> None:
        text = _text(data)
        for parse_quantity in parsers:
            with contextlib.suppress(EffxError):
                parse_quantity(text)

    return parse


def _shape() -> Parser:
    from effx.errors import EffxError
    from effx.specs import measurement, training

    parsers: tuple[Callable[[str], object], ...] = (measurement.parse_shape, training.trained_layers)

    def parse(data: bytes) -> None:
        text = _text(data)
        for parse_shape in parsers:
            with contextlib.suppress(EffxError):
                parse_shape(text)

    return parse


def _recipe() -> Parser:
    from effx.recipe.language import document

    return lambda data: document.parse(data.decode())


def _table(name: str) -> Parser:
    from effx.data import tables
    from effx.data.columns import choose
    from effx.specs.data import DataSettings

    settings = DataSettings()
    return lambda data: tables.read(
        [_file(name, data)], settings, lambda columns: choose(columns, name, settings, None)
    )


def _onnx() -> Parser:
    from effx.engines import onnx_files

    return lambda data: onnx_files.check(_file("m.onnx", data))


def _trace() -> Parser:
    from effx.meters import replay

    return lambda data: replay.open(str(_file("t.csv" if data[:1] == b"#" else "t.json", data)))


PARSERS: dict[str, Callable[[], Parser]] = {
    "manifest": _manifest, "result": _result, "section": _section, "variant": _variant, "levels": _levels,
    "quantity": _quantity, "shape": _shape, "recipe": _recipe, "csv": lambda: _table("t.csv"),
    "jsonl": lambda: _table("t.jsonl"), "onnx": _onnx, "trace": _trace,
}  # fmt: skip


_AXIS = {"label": "level", "unit": "%", "log": False}
_SECTION = {
    "schema": 1, "title": "Tickets", "text": "By level.", "source": "checkpoints/tickets.json",
    "charts": [{"title": "Accuracy", "interval": "95 %", "x": _AXIS, "y": {"label": "accuracy"},
                "series": [{"name": "winning", "points": [{"x": 10, "y": 0.8, "low": 0.7, "high": 0.9}]}]}],
    "maps": [{"title": "Heads", "unit": "share", "corner": "layer", "rows": ["0"], "columns": ["0", "1"],
              "values": [[0.5, None]]}],
    "tables": [{"title": "Levels", "columns": [{"label": "level", "unit": "%"}], "rows": [["full"], [1.5]]}],
}  # fmt: skip
_TRACE = {
    "device": "a GPU", "recorded": "2026-01-01", "command": "effx profile", "t_s": [0.0, 0.1, 0.2],
    "counter_j": [1.0, 2.0, 3.0], "power_w": [10.0, 10.0, 10.0], "power_window_s": 0.1, "power_limit_w": 70,
}  # fmt: skip
_CSV_TRACE = "# device: a GPU\n# recorded: 2026-01-01\n# command: effx profile\nt_s,power_w\n0,10\n0.1,11\n"
TEXTS: dict[str, tuple[str, ...]] = {
    "section": (json.dumps(_SECTION),),
    "variant": (
        "fp32",
        "int8-static+seq128",
        "fp16+buckets",
        "int8+exit",
        "exit-if+tokens+bf16",
        "fp8+stripped",
    ),
    "levels": ("40", "10,20,40", "20/10,40", "10,...,80"),
    "quantity": ("5ms", "1.5 s", "64MiB", "2e3uJ", "1%", "0.01", "95 %", "0.9"),
    "shape": ("8x32", " 1x128 ", "full", "frozen", "last-2"),
    "csv": (
        'sentence,label\n"a, b",1\nc,0\n',
        "text;label\n'x';ja\ny;nein\n",
        "sentence1\tsentence2\tlabel\na\tb\t1\n",
    ),
    "jsonl": (
        '{"sentence": "a", "label": 1}\n{"sentence": "b", "label": "0"}\n',
        '{"tokens": ["a"], "tags": ["O"]}\n',
    ),
    "trace": (json.dumps(_TRACE), _CSV_TRACE),
}
"""Parser -> valid inputs."""
FILES: dict[str, tuple[str, ...]] = {
    "manifest": ("effx.json", "engine.json"), "result": ("results/*.json",), "onnx": ("*.onnx",),
    "recipe": ("recipe.yaml",),
}  # fmt: skip
"""Parser -> patterns of valid files within the artifacts."""
_MOST_BYTES = 1 << 18
"""Larger files are not used: the fuzzer would change little of them in its time."""


def write_examples(name: str, artifacts: Path, corpus: Path) -> None:
    """Write valid inputs of a parser into an empty folder; end with an error if there is none."""
    examples = [text.encode() for text in TEXTS.get(name, ())]
    for pattern in FILES.get(name, ()):
        files = [path for path in sorted(artifacts.rglob(pattern)) if path.stat().st_size <= _MOST_BYTES]
        examples += [path.read_bytes() for path in files[:20]]
    if not examples:
        sys.exit(f"{artifacts}: no {' or '.join(FILES[name])} of at most {_MOST_BYTES} bytes")
    corpus.mkdir(parents=True, exist_ok=True)
    for number, example in enumerate(examples):
        (corpus / f"example-{number}").write_bytes(example)


def main() -> None:
    name, artifacts = sys.argv.pop(1), Path(sys.argv.pop(1))
    write_examples(name, artifacts, Path(sys.argv[-1]))
    with atheris.instrument_imports(include=["effx"]):
        from effx.errors import EffxError
        from effx.host.sensors import UnavailableError

        parse = PARSERS[name]()

    def one(data: bytes) -> None:
        refused = contextlib.suppress(EffxError, UnavailableError, UnicodeDecodeError)
        with refused, contextlib.redirect_stderr(io.StringIO()):
            parse(data)

    valid = 0
    for path in sorted(Path(sys.argv[-1]).glob("example-*")):
        with contextlib.suppress(EffxError, UnavailableError):
            parse(path.read_bytes())
            valid += 1
    print(f"{name}: {valid} valid examples", flush=True)
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
