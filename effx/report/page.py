"""The page: one HTML file with style, script and data inside, nothing from the network.

The data are in a JSON block that no engine's name can end. A content security policy allows only the
page's inline script and style, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

_STYLES = ("page.css",)
_SCRIPTS = (
    "base.js",
    "data.js",
    "scatter.js",
    "datatable.js",
    "losses.js",
    "details.js",
    "frontier.js",
    "engines.js",
    "curves.js",
    "grid.js",
    "energy.js",
    "hosts.js",
    "sections.js",
    "main.js",
)


def render(payload: Mapping[str, Any]) -> str:
    """Return the page's HTML.

    Args:
        payload: see :func:`effx.report.payload.payload`.
    """
    environment = Environment(
        loader=PackageLoader("effx.report"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    style = "\n".join(map(_asset, _STYLES))
    script = "\n".join(["'use strict';(() => {", *map(_asset, _SCRIPTS), "})();"])
    return environment.get_template("index.html.j2").render(
        payload=payload, style=style, script=script, data=embed(payload),
        style_hash=_hash(style), script_hash=_hash(script),
    )  # fmt: skip


def embed(value: Any) -> str:
    """Return JSON for a script element: no tag or entity can begin in it."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))  # ASCII, lone surrogates included
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _asset(name: str) -> str:
    return resources.files("effx.report").joinpath("assets", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    """Return the source expression of an inline script or style in a content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
