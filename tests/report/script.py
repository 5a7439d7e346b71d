"""The page's script in Node.js, with as much of a document as its sections need."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib import resources
from pathlib import Path
from typing import Any

from effx.report import page

NODE = shutil.which("node")
_DOCUMENT = Path(__file__).with_name("document.js")
_LAST = "main.js"
"""The script that draws every section; tests draw those they check."""


def evaluate(payload: Any, folder: Path, script: str) -> Any:
    """Run a script after those of the page, and return what it returns.

    Args:
        payload: the page's data.
        folder: for temporary files.
        script: body of a function of JavaScript; its result must be JSON.
    """
    assert NODE is not None
    assets = [
        resources.files("effx.report").joinpath("assets", name).read_text(encoding="utf-8")
        for name in page._SCRIPTS
        if name != _LAST
    ]
    data = f"const PAYLOAD = {json.dumps(json.dumps(payload))};"
    document = _DOCUMENT.read_text(encoding="utf-8")
    result = f"console.log(JSON.stringify((() => {{ {script} }})()));"
    file = folder / "page.js"
    file.write_text("\n".join(["'use strict';", data, document, *assets, result]), encoding="utf-8")
    done = subprocess.run([NODE, str(file)], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
