"""``effx train multitask``: where the rows of each task are."""

from __future__ import annotations

from pathlib import Path

import pytest

from effx.cli import run
from effx.cli.several_tasks import folders


def test_a_folder_has_the_rows_of_each_task_by_name(tmp_path: Path) -> None:
    (tmp_path / "mrpc").mkdir()
    (tmp_path / "rte.csv").touch()
    assert folders((str(tmp_path),), ["mrpc", "rte"]) == {
        "mrpc": tmp_path / "mrpc",
        "rte": tmp_path / "rte.csv",
    }
    assert folders((), ["mrpc", "rte"]) == {}
    assert folders(("mrpc=a=b",), ["mrpc", "rte"]) == {"mrpc": Path("a=b")}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (["{folder}"], "it has no folder or file of rows named rte; write TASK=PATH for single tasks"),
        (["{folder}/absent"], "it is not a folder"),
        (["mrpc=x", "mrpc=y"], "data of task 'mrpc' given twice"),
        (["sst2=x"], "data of sst2: it is not one of the tasks"),
    ],
)
def test_wrong_sources_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], data: list[str], message: str
) -> None:
    (tmp_path / "mrpc").mkdir()
    arguments = [part for source in data for part in ("--data", source.format(folder=tmp_path))]
    assert run(["train", "multitask", "mrpc,rte", "--model", str(tmp_path), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
