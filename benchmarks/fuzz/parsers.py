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
    from effx.profile.meters import replay

    return lambda data: replay.open(str(_file("t.csv" if data[:1] == b"#" else "t.json", data)))


PARSERS: dict[str, Callable[[], Parser]] = {
    "manifest": _manifest, "result": _result, "section": _section, "variant": _variant, "levels": _levels,
    "quantity": _quantity, "shape": _shape, "recipe": _recipe, "csv": lambda: _table("t.csv"),
    "jsonl": lambda: _table("t.jsonl"), "onnx": _onnx, "trace": _trace,
}  # fmt: skip


def main() -> None:
    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=["effx"]):
        from effx.errors import EffxError
        from effx.host.sensors import UnavailableError

        parse = PARSERS[name]()

    def one(data: bytes) -> None:
        refused = contextlib.suppress(EffxError, UnavailableError, UnicodeDecodeError)
        with refused, contextlib.redirect_stderr(io.StringIO()):
            parse(data)

    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
