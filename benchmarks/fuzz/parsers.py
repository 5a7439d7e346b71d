"""Coverage-guided fuzzing of the parsers, with atheris: any bytes at all give a value or an error of effx.

    pip install atheris
    python benchmarks/fuzz/parsers.py PARSER -max_total_time=600 [CORPUS]

PARSER: manifest, result, section, variant, levels, quantity, shape, recipe, csv, jsonl, onnx, trace. Further
arguments are libFuzzer's. It stops at the first error that is not an :class:`effx.errors.EffxError`.
"""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["effx"]):
    from effx import records
    from effx.artifacts import Checkpoint, Engine
    from effx.data import tables
    from effx.data.columns import choose
    from effx.engines import onnx_files
    from effx.errors import EffxError
    from effx.host.sensors import UnavailableError
    from effx.profile.meters import replay
    from effx.recipe.language import document
    from effx.report import sections
    from effx.results import storage
    from effx.specs import levels, measurement, quantities, training, variants
    from effx.specs.data import DataSettings

_SCRATCH = Path(tempfile.mkdtemp(prefix="effx-atheris-"))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _file(name: str, data: bytes) -> Path:
    path = _SCRATCH / name
    path.write_bytes(data)
    return path


def _manifest(data: bytes) -> None:
    value = records.parse_json(data, Path("m.json"))
    for kind in (Engine, Checkpoint):
        with contextlib.suppress(EffxError):
            records.build(kind.manifest_type(), value, Path("m.json"))


def _levels(data: bytes) -> None:
    levels.parse_levels(_text(data))


def _quantity(data: bytes) -> None:
    text = _text(data)
    parsers: tuple[Callable[[str], object], ...] = (
        quantities.DURATION.parse, quantities.SIZE.parse, quantities.ENERGY.parse, quantities.parse_share,
        quantities.parse_score, quantities.parse_confidence,
    )  # fmt: skip
    for parse in parsers:
        with contextlib.suppress(EffxError):
            parse(text)


def _shape(data: bytes) -> None:
    text = _text(data)
    for parse in (measurement.parse_shape, training.trained_layers):
        with contextlib.suppress(EffxError):
            parse(text)  # type: ignore[operator]


def _table(name: str, data: bytes) -> None:
    settings = DataSettings()
    tables.read([_file(name, data)], settings, lambda columns: choose(columns, name, settings, None))


PARSERS: dict[str, Callable[[bytes], object]] = {
    "manifest": _manifest,
    "result": lambda data: storage.open_run(_file("r.json", data)),
    "section": lambda data: sections.read([_file("s.json", data)]),
    "variant": lambda data: variants.parse(_text(data)),
    "levels": _levels,
    "quantity": _quantity,
    "shape": _shape,
    "recipe": lambda data: document.parse(data.decode()),
    "csv": lambda data: _table("t.csv", data),
    "jsonl": lambda data: _table("t.jsonl", data),
    "onnx": lambda data: onnx_files.check(_file("m.onnx", data)),
    "trace": lambda data: replay.open(str(_file("t.csv" if data[:1] == b"#" else "t.json", data))),
}


def main() -> None:
    name = sys.argv.pop(1)
    parse = PARSERS[name]

    def one(data: bytes) -> None:
        refused = contextlib.suppress(EffxError, UnavailableError, UnicodeDecodeError)
        with refused, contextlib.redirect_stderr(io.StringIO()):
            parse(data)

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
