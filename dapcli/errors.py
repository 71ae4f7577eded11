"""Errors that a user can act on, each with the exit code of the command line.

Every message is one line that says what is wrong and what to do about it.
"""


class DapError(Exception):
    """Base of all errors that dap raises on purpose."""

    exit_code = 1


class SettingsError(DapError, ValueError):
    """An option or a combination of options that cannot be used."""

    exit_code = 2


class InputError(DapError, ValueError):
    """An input that cannot be read, or cannot be restored."""

    exit_code = 3


class OutputError(DapError, OSError):
    """An output that cannot, or must not, be written."""

    exit_code = 3


class InterruptedRunError(DapError):
    """A run that was interrupted and can go on where it stopped."""

    exit_code = 130


class DeviceError(DapError, RuntimeError):
    """A device that is not there, or ran out of memory."""

    exit_code = 4


class PartialError(DapError):
    """A part of what was to be done failed; the rest is done."""

    exit_code = 5


def not_installed(error: ModuleNotFoundError) -> str:
    """What to do about a package that dap needs and that is missing."""
    return f"{error.name} is not installed; `pip install dapcli` brings it, and docs/install.md says how without CUDA"
