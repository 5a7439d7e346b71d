"""One function silences libraries, and leaves everything as it was."""

from __future__ import annotations

import logging
import sys
import warnings

import pytest

from effx.quiet import quiet


def test_remarks_are_silenced_and_come_back(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("a.library")
    with quiet():
        logger.warning("a remark")
        warnings.warn("another", stacklevel=1)
    assert caplog.records == []
    logger.warning("afterwards")
    assert [record.message for record in caplog.records] == ["afterwards"]
    with pytest.raises(UserWarning):
        warnings.warn("an error again", stacklevel=1)


def test_errors_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with quiet():
        logging.getLogger("a.library").error("a failure")
    assert [record.message for record in caplog.records] == ["a failure"]


def test_output_is_discarded_only_on_request(capsys: pytest.CaptureFixture[str]) -> None:
    with quiet():
        print("progress of effx")
    with quiet(output=True):
        print("progress of a library")
        print("and its bar", file=sys.stderr)
    assert capsys.readouterr() == ("progress of effx\n", "")


def test_progress_bars_of_transformers_come_back_after_an_error() -> None:
    from transformers.utils import logging as messages

    messages.enable_progress_bar()
    with pytest.raises(ValueError, match="within"), quiet():
        assert not messages.is_progress_bar_enabled()
        raise ValueError("within")
    assert messages.is_progress_bar_enabled()
