"""The errors that normdoctor raises on purpose: one tree, each with a hint and an exit code."""

from __future__ import annotations


class NormDoctorError(Exception):
    """Something that the user can mend.

    The message says what was expected and what was found; `hint` says what to do. The command line
    prints both without a traceback and exits with `exit_code`.
    """

    exit_code: int = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class UsageError(NormDoctorError):
    """A flag, argument or selector that makes no sense."""


class ConfigError(NormDoctorError):
    """A configuration file that cannot be used; the message names the file and the key."""


class TargetError(NormDoctorError):
    """A model that cannot be found, imported or built."""


class TraceError(NormDoctorError):
    """A forward that cannot be run or recorded."""


class RewriteError(NormDoctorError):
    """A rewrite that was refused, or that failed its own proof."""


def text_of(error: BaseException) -> str:
    """The text of an error, also of one whose own `__str__` raises."""
    try:
        return str(error)
    except Exception as second:
        return f"(its text cannot be had: {type(second).__name__})"


def brief(error: BaseException) -> str:
    """A foreign error on one line: `ValueError: no such width`."""
    whole, name = text_of(error), type(error).__name__
    if "Traceback (most recent call last)" in whole:  # of a worker, which torch passes on as text
        whole = whole.strip().splitlines()[-1]
    text = " ".join(whole.split()).removeprefix(f"{name}: ")
    return f"{name}: {text[:300]}" if text else name


def kind_of(value: object) -> str:
    """What a value is, for "expected ..., found ...": `an int (3)`."""
    name = type(value).__name__
    article = "an" if name[:1].lower() in "aeiou" else "a"
    try:
        text = repr(value)
    except Exception:
        text = ""
    return (
        f"{article} {name} ({text})" if text and len(text) <= 60 and "\n" not in text else f"{article} {name}"
    )


def near(name: str, candidates: list[str]) -> str | None:
    """Return "did you mean ...?" for a mistyped name, or None when nothing is near."""
    import difflib

    spelled: dict[str, list[str]] = {}
    for candidate in dict.fromkeys(candidates):
        spelled.setdefault(candidate.lower(), []).append(candidate)
    matches = difflib.get_close_matches(name.lower(), list(spelled), n=3, cutoff=0.6)
    if not matches:
        return None
    # `net` and `Net` are two names: both are offered.
    found = [candidate for match in matches for candidate in spelled[match]][:3]
    return "Did you mean " + " or ".join(f"`{candidate}`" for candidate in found) + "?"
