"""Silence libraries while they work: remarks that a user can do nothing about.

Errors are not touched: they are raised, and whoever catches them decides what to print.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet(*, output: bool = False) -> Iterator[None]:
    """Silence log records up to warnings, Python warnings and transformers' progress bars.

    Args:
        output: also discard what is printed on stdout and stderr, as the progress bars of exporters and
            quantisers. Not for code that reports progress itself.
    """
    # tokenizers prints a remark at every fork where this is not set; "true" is its default
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    with contextlib.ExitStack() as stack:
        stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.WARNING)
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        stack.enter_context(_no_progress_bars())
        if output:
            stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
            stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        yield


@contextlib.contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Switch off transformers' progress bars, where transformers is loaded: nothing is imported for it."""
    transformers_logging = sys.modules.get("transformers.utils.logging")
    if transformers_logging is None or not transformers_logging.is_progress_bar_enabled():
        yield
        return
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.enable_progress_bar()
