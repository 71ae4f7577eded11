"""The options of single tasks on the command line, and what is wrong with them before any file is read.

They are made in the same way as :class:`~dapcli.settings.Settings`, and import nothing heavy either.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from dapcli.errors import InputError, SettingsError
from dapcli.settings import check_limits, own
from dapcli.signal.source_types import ANY_TYPE, DEFAULT_TYPES, SOURCE_TYPES, check_types, default_names

#: How people say which samples are missing.
BY_HAND = "give gaps with --gap START:END, in seconds, or with --mask FILE"


def parse_range(text: str, flag: str, wanted: str = "LOW:HIGH or one number") -> tuple[float, float]:
    """Both ends of ``LOW:HIGH``, or one number as both.

    Raises:
        SettingsError: The text is not of this form.
    """
    try:
        low, *high = (float(part) for part in text.split(":"))
        (most,) = high or (low,)
    except ValueError:
        raise SettingsError(f"{flag} {text}: give {wanted}") from None
    return low, most


def split(text: str) -> tuple[str, ...]:
    """The parts of a text with commas between them."""
    return tuple(part.strip() for part in text.split(","))


@dataclass(frozen=True)
class TaskOptions:
    """What all tasks have in common, for those that have no such option."""

    dry_run: bool = False
    """Find out what is wrong with the recording, and stop."""
    consistent: bool = True
    """Move the estimate to where it is consistent with what is known."""
    fixed_order: bool = False
    """Compare each source with the reference in its place."""
    extension: str | None = None
    """Extension of the files of the sources, None for that of the recording."""

    #: The task writes a folder of sources, whose files :meth:`names` calls.
    folder: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_limits(self)

    @property
    def files(self) -> tuple[Path, ...]:
        """Files that are read besides IN and the references."""
        return ()

    def names(self, estimator: str) -> tuple[str, ...]:
        """What the files of the sources are called, for tasks that write a folder of them."""
        del estimator
        return ()


@dataclass(frozen=True)
class DenoiseOptions(TaskOptions):
    """The options of ``dap denoise``."""

    noise_profile: str | None = own(
        None,
        "Stretch with nothing but noise, in seconds, or a file of nothing but that noise.",
        metavar="START:END|FILE",
    )

    @property
    def profile(self) -> Path | tuple[float, float] | None:
        """The file of a noise profile, or start and end, in seconds, of a stretch of noise.

        Raises:
            SettingsError: The text is neither a file nor a stretch.
        """
        text = self.noise_profile
        if not text:
            return None
        if (path := Path(text)).is_file():
            return path
        wanted = "START:END in seconds, such as 0.0:0.5, or a file that exists"
        if ":" not in text:
            raise SettingsError(f"--noise-profile {text}: give {wanted}")
        return parse_range(text, "--noise-profile", wanted)

    @property
    def files(self) -> tuple[Path, ...]:
        """The file of a noise profile."""
        return (self.profile,) if isinstance(self.profile, Path) else ()

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.profile


@dataclass(frozen=True)
class InpaintOptions(TaskOptions):
    """The options of ``dap inpaint``: gaps are given, read from a mask, or detected."""

    gap: tuple[str, ...] = own((), "Missing stretch in seconds, or 8000n:8960n; repeatable.", metavar="START:END")
    mask: Path | None = own(
        None, "Labels of gaps (Audacity's .txt, or .csv), or audio that is zero where samples miss."
    )
    detect: bool = own(False, "Find dropouts: runs of one and the same value.")
    min_gap: float | None = own(None, "Shortest dropout that --detect finds (0.005).", metavar="SECONDS", above=0)
    dry_run: bool = own(False, "Print the gaps and stop; writes nothing.")
    consistent: bool = own(
        True, "Leave known samples as they are, bit by bit, or not.", flag="--keep-known/--refit-known"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.min_gap is not None and not self.detect:
            raise SettingsError("--min-gap says what --detect finds; add --detect or leave it out")
        sources = [f"--{name}" for name in ("gap", "mask", "detect") if getattr(self, name)]
        if len(sources) > 1:
            raise SettingsError(f"{' and '.join(sources)} both say what is missing; use one of them")
        if not sources:
            raise InputError(f"nothing says which samples are missing; {BY_HAND}, or add --detect")

    @property
    def files(self) -> tuple[Path, ...]:
        """The file of a mask."""
        return (self.mask,) if self.mask else ()


@dataclass(frozen=True)
class DeclipOptions(TaskOptions):
    """The options of ``dap declip``."""

    level: float | None = own(None, "Level of clipping, full scale at 1; without it, detected by channel and side.")
    consistent: bool = own(
        True,
        "Keep reliable samples bit by bit, and clipped ones beyond the level.",
        flag="--consistent/--no-consistent",
    )


@dataclass(frozen=True)
class DequantizeOptions(TaskOptions):
    """The options of ``dap dequantize``."""

    levels: int | None = own(None, "Levels of the quantizer between -1 and 1; without it, detected.")
    consistent: bool = own(True, "Keep every sample in its cell of the quantizer.", flag="--consistent/--no-consistent")


_TYPES = "; ".join(f"{name} ({each.description})" for name, each in SOURCE_TYPES.items())


@dataclass(frozen=True)
class SeparateOptions(TaskOptions):
    """The options of ``dap separate``."""

    sources: int | None = own(
        None, "How many sources.", shown="2", least=min(DEFAULT_TYPES), below=max(DEFAULT_TYPES) + 1
    )
    types: str | None = own(None, f"What each source is: {_TYPES}.", metavar="TYPE,TYPE")
    called: str | None = own(None, "Names of the files.", flag="--names", metavar="NAME,NAME", shown="the types")
    consistent: bool = own(True, "Make the sources sum to the mixture.", flag="--consistent/--no-consistent")
    extension: str | None = own(None, "Extension of the files.", flag="--format", metavar="EXTENSION", shown="IN's")
    fixed_order: bool = own(False, "Compare each source with the reference in its place.")

    folder: ClassVar[bool] = True

    def source_types(self, estimator: str) -> tuple[str, ...]:
        """The type of every source, which ``double-dip`` makes no use of.

        Raises:
            SettingsError: They are not types of two to four sources, or not of as many as ``--sources``.
        """
        types = DEFAULT_TYPES[self.sources or 2] if self.types is None else split(self.types)
        check_types(types)
        if self.sources not in (None, len(types)):
            raise SettingsError(
                f"--types has {len(types)} sources, --sources {self.sources}; they must agree, or leave one out"
            )
        if estimator != "double-dip":
            return types
        if self.types:
            raise SettingsError("--types belongs to --estimator ratio-mask; double-dip makes no use of them")
        return (ANY_TYPE,) * len(types)

    def names(self, estimator: str) -> tuple[str, ...]:
        """What the files are called: as was given, or by the types of the sources.

        Raises:
            SettingsError: There are more or fewer than sources, or one does not name a file of its own.
        """
        types = self.source_types(estimator)
        if self.called is None:
            return default_names(types)
        names = split(self.called)
        if len(names) != len(types):
            raise SettingsError(f"--names has {len(names)} for {len(types)} sources; give one for each")
        for name in names:
            if name in ("", "..") or Path(name).name != name or "\\" in name or "\0" in name:
                raise SettingsError(f"--names: {name!r} is not a plain file name; leave out folders")
        if len({name.casefold() for name in names}) < len(names):
            raise SettingsError("--names has one name twice; names must differ in more than upper and lower case")
        return names
