"""Graphs that cannot be measured are refused in one line with exit code 2, and nothing is left behind."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from effx import cli
from tests.export.foreign.graphs import WORDS, classifier, write, write_rows

Change = Callable[[Path], None]


def importing(tmp_path: Path, *more: str, task: str = "sst2") -> int:
    """Run ``effx import-engine`` on the graph in ``tmp_path/hub``."""
    rows = write_rows(tmp_path / "rows")
    arguments = ["import-engine", str(tmp_path / "hub"), "--task", task, "--data", str(rows)]
    return cli.run([*arguments, "-o", str(tmp_path / "engines"), *more])


def save(model: onnx.ModelProto) -> Change:
    return lambda folder: onnx.save(model, folder / "model.onnx")


def two_outputs(folder: Path) -> None:
    model = classifier()
    model.graph.node[-1].output[0] = "scores"
    model.graph.output[0].name = "scores"
    model.graph.output.append(helper.make_tensor_value_info("sums", TensorProto.FLOAT, ["rows", 2]))
    onnx.save(model, folder / "model.onnx")


def fixed_inside(folder: Path) -> None:
    """Declared dynamic, but a Reshape inside fixes the batch, as traced scripts do."""
    model = classifier()
    model.graph.node[-1].input[0] = "fixed"
    model.graph.node.insert(5, helper.make_node("Reshape", ["sums", "one_row"], ["fixed"]))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 2]), "one_row"))
    onnx.save(model, folder / "model.onnx")


def without_mask(folder: Path) -> None:
    model = classifier()
    del model.graph.node[1:4], model.graph.input[1]
    model.graph.node[1].input[0] = "vectors"
    table = np.ones((len(WORDS), 2), dtype=np.float32)  # padding counts, too
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(table, "table"))
    onnx.save(model, folder / "model.onnx")


def external(location: str) -> Change:
    """The weights are in another file, which is missing unless it is outside."""

    def change(folder: Path) -> None:
        onnx.save(classifier(), folder / "model.onnx", save_as_external_data=True, location="weights",
                  size_threshold=0)  # fmt: skip
        (folder / "weights").rename(folder.parent / "outside")
        model = onnx.load(folder / "model.onnx", load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        (folder / "link").symlink_to(folder.parent / "outside")
        shutil.copyfile(folder.parent / "outside", folder / ".weights")

    return change


def hidden(folder: Path) -> None:
    (folder / "model.onnx").rename(folder / ".model.onnx")


def linked(name: str, content: str) -> Change:
    """A file of the tokenizer is a link to a file elsewhere."""

    def change(folder: Path) -> None:
        (folder.parent / "elsewhere").write_text(content)
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(folder.parent / "elsewhere")

    return change


def config(**values: object) -> Change:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def text(name: str, content: bytes) -> Change:
    return lambda folder: Path(folder / name).write_bytes(content) and None


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def fifo(name: str) -> Change:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(two_outputs, "unclear which output has the logits: the graph has s", id="two-outputs"),
        pytest.param(save(classifier(extra_inputs=("pixels",))), "pixels (int64 [?, ?]). State", id="input"),
        pytest.param(save(classifier(rows=1)), "has a fixed batch size", id="fixed-batch"),
        pytest.param(fixed_inside, "does not accept 2 rows of 4 tokens", id="fixed-batch-inside"),
        pytest.param(save(classifier(labels=3)), "has 3 logits, but task sst2 has 2 labels", id="labels"),
        pytest.param(save(classifier(scale=float("inf"))), "its logits are not finite", id="infinite"),
        pytest.param(save(classifier(embedding=6)), "ids up to 6, but the embedding", id="other-tokenizer"),
        pytest.param(without_mask, "its answers depend on padding", id="no-mask"),
        pytest.param(external("weights"), "weights, which has its weights, is missing", id="external-none"),
        pytest.param(external("../outside"), "not a file in its folder", id="external-outside"),
        pytest.param(external("/etc/hostname"), "not a file in its folder", id="external-absolute"),
        pytest.param(external("link"), "is not a regular file in its folder", id="external-link"),
        pytest.param(external(".weights"), "are at '.weights', a hidden file", id="external-hidden"),
        pytest.param(hidden, ".model.onnx is a hidden file: rename it", id="hidden"),
        pytest.param(no_tokenizer, "tokenizer.json is missing", id="tokenizer"),
        pytest.param(text("tokenizer.json", b"{}"), "tokenizer.json cannot be read", id="tokenizer-damaged"),
        pytest.param(linked("special_tokens_map.json", "a secret"), "is not JSON", id="tokenizer-link"),
        pytest.param(linked("tokenizer_config.json", "[1]"), "expected a JSON object", id="tokenizer-list"),
        pytest.param(fifo("tokenizer.json"), "is not a regular file", id="tokenizer-fifo"),
        pytest.param(fifo("config.json"), "is not a regular file", id="config-fifo"),
        pytest.param(text("config.json", b"[" * 100_000), "nested too deeply", id="config-deep"),
        pytest.param(text("model.onnx", b"\x08"), "is not an ONNX file", id="not-onnx"),
        pytest.param(config(id2label={"0": "NEGATIVE", "x": "POSITIVE"}), "id2label", id="config-types"),
        pytest.param(config(id2label=None), "does not say which of them is which", id="labels-unnamed"),
        pytest.param(config(id2label={"0": "x", "1": "y"}), "its labels are x, y", id="labels-other"),
        pytest.param(config(max_position_embeddings=2), "max_length 2: expected 4 to 2", id="positions"),
    ],
)  # fmt: skip
def test_bad_graphs_are_refused_in_one_line(
    change: Change, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "hub")
    change(tmp_path / "hub")
    assert importing(tmp_path) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "engines").exists() or not any((tmp_path / "engines").iterdir())


def test_links_to_files_of_the_tokenizer_are_followed(tmp_path: Path) -> None:
    """The cache of the hub consists of links."""
    write(tmp_path / "hub")
    content = '{"pad_token": "[PAD]"}'
    linked("special_tokens_map.json", content)(tmp_path / "hub")
    assert importing(tmp_path) == 0
    (engine,) = (tmp_path / "engines").iterdir()
    assert (engine / "special_tokens_map.json").read_text() == content
    assert not (engine / "special_tokens_map.json").is_symlink()


def test_files_that_run_code_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("model.pt2", "model.pt"):
        (tmp_path / name).write_bytes(b"PK")
        assert cli.run(["import-engine", str(tmp_path / name), "--task", "sst2"]) == 2
        assert "can run code when they are opened" in capsys.readouterr().err


def test_names_of_a_graph_are_printed_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = classifier(extra_inputs=("\x1b[31m",))
    write(tmp_path / "hub", model)
    assert importing(tmp_path) == 2
    model = classifier()
    model.producer_name = "\x1b[31m" + "x" * 1000
    onnx.save(model, tmp_path / "hub" / "model.onnx")
    assert importing(tmp_path) == 0
    shown = capsys.readouterr()
    assert "\x1b" not in shown.err + shown.out
    manifest = next((tmp_path / "engines").glob("*/engine.json")).read_text()
    assert len(json.loads(manifest)["made_elsewhere"]["producer"]) == 80


def test_a_config_that_claims_endless_positions_does_not_fill_the_memory(tmp_path: Path) -> None:
    write(tmp_path / "hub", max_position_embeddings=1 << 30)
    assert importing(tmp_path) == 0
    manifest = json.loads(next((tmp_path / "engines").glob("*/engine.json")).read_text())
    assert manifest["max_length"] == 512


def test_profile_says_how_a_graph_becomes_an_engine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "hub")
    for given in (path, path.parent):
        assert cli.run(["profile", str(given)]) == 2
        assert f"effx import-engine {given} --task TASK" in capsys.readouterr().err


def test_original_names_do_not_tell_folders_of_other_machines(tmp_path: Path) -> None:
    write(tmp_path / "hub", _name_or_path="/home/someone/secret-project")
    assert importing(tmp_path) == 0
    engine = next((tmp_path / "engines").glob("*/engine.json"))
    assert json.loads(engine.read_text())["model"] == "hub"
