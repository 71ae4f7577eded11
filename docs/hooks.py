"""What MkDocs does besides: the site listens with the same script as the page of ``--report``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

_SCRIPT = Path(__file__).parent.parent / "dapcli" / "report" / "templates" / "listen.js"


def on_files(files: Files, config: Any) -> Files:
    """Add the script to the site's files."""
    files.append(File.generated(config, "assets/listen.js", abs_src_path=str(_SCRIPT)))
    return files
