"""What MkDocs does besides: the site listens with the script of the page of ``--report``, and reads our docstrings."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

from dapcli.settings import Settings

_SCRIPT = Path(__file__).parent.parent / "dapcli" / "report" / "templates" / "listen.js"
_SETTINGS = "<!-- settings -->"


def on_files(files: Files, config: Any) -> Files:
    """Add the script to the site's files."""
    files.append(File.generated(config, "assets/listen.js", abs_src_path=str(_SCRIPT)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put a table of all settings, whose help is metadata, where a page asks for it."""
    rows = (f"| `{each.name}` | `{each.default}` | {each.metadata['help']} |" for each in fields(Settings))
    return markdown.replace(_SETTINGS, "\n".join(["| field | default | |", "|---|---|---|", *rows]))


def on_page_content(html: str, **_: Any) -> str:
    """Take the roles off the names in docstrings."""
    return re.sub(r":(?:attr|class|data|func|meth):<code>~?(?:[\w.]*\.)?(\w+)</code>", r"<code>\1</code>", html)
