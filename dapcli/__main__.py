"""Entry point of ``dap``, also as ``python -m dapcli``: it imports next to nothing before it can be interrupted."""

from __future__ import annotations

import os

_INTERRUPTED = 130


def _end(*_: object) -> None:
    os.write(2, b"dap: interrupted; nothing was written\n")
    os._exit(_INTERRUPTED)


def main() -> None:
    """Run the command line; Ctrl-C during its import is one line and not a traceback."""
    try:
        import signal

        # An exception could end within an import that makes another of it. Where Ctrl-C is ignored it stays so.
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _end)
    except KeyboardInterrupt:
        _end()
    from dapcli.cli import main as run

    run()


if __name__ == "__main__":
    main()
