"""Running `normdoctor` for a file, in a process of its own that can be stopped."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from normdoctor.configfile import find, load_settings
from normdoctor.errors import NormDoctorError

#: A file without any of these words holds no model; checking it would only cost time.
_WORDS = re.compile(r"\b(torch|nn|Module|timm|transformers|lightning)\b")


@dataclass(frozen=True, slots=True)
class Done:
    """What a run of the command line printed."""

    code: int
    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        """The error of a run that has no report, without the word before it."""
        lines = [line for line in self.stderr.splitlines() if line.startswith("Error: ")]
        last = self.stderr.strip().splitlines()[-1:] or [f"exit code {self.code}"]
        return (lines or last)[0].removeprefix("Error: ")


@dataclass(frozen=True, slots=True)
class Job:
    """What to check where: the folder to stand in, and the targets."""

    folder: Path
    targets: tuple[str, ...]


def job_of(file: Path, source: str, root: Path | None) -> Job | None:
    """The targets of the configuration that are in a file, otherwise the file; None where no model can be.

    Without a configuration file the check starts in the folder of the workspace, or of the file.
    """
    config = None
    with contextlib.suppress(NormDoctorError):  # as below
        config = find(file.parent)
    if config is None:
        folder = root if root is not None and file.is_relative_to(root) else file.parent
        return Job(folder, (os.path.relpath(file, folder),)) if _WORDS.search(source) else None
    folder = config.parent
    name = os.path.relpath(file, folder)
    with contextlib.suppress(NormDoctorError):  # the check says what is wrong with the configuration
        found = []
        for target in load_settings(start=folder).targets:
            place, colon, rest = target.partition(":")
            if os.path.abspath(place) == str(file):
                found.append(f"{name}{colon}{rest}")
        if found:
            return Job(folder, tuple(found))
    return Job(folder, (name,)) if _WORDS.search(source) else None


async def run(words: list[str], folder: Path, seconds: float) -> Done:
    """Run `normdoctor WORDS` in a folder.

    Raises:
        TimeoutError: It took longer; it was stopped, with the processes that it started.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "normdoctor", *words),
        cwd=folder,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(seconds):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            _stop(process)
            await process.wait()
    return Done(process.returncode or 0, out.decode(errors="replace"), err.decode(errors="replace"))


def _stop(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
