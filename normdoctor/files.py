"""Writing files whole or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file in one step: whoever reads it sees the old or the new text, never a part.

    A link stays a link, and the permissions stay as they were; so does the owner, where that is allowed.

    Raises:
        OSError: The file, or its folder, cannot be written; the file is as it was.
    """
    real = path.resolve()
    if real.exists() and not os.access(real, os.W_OK):
        raise PermissionError(13, "Permission denied", str(path))
    handle, name = tempfile.mkstemp(prefix=f".{real.name}.", dir=real.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
        if real.exists():
            held = real.stat()
            with contextlib.suppress(OSError, AttributeError):  # only root may; Windows has no chown
                os.chown(name, held.st_uid, held.st_gid)
            shutil.copymode(real, name)
        else:
            os.chmod(name, 0o666 & ~_umask())
        os.replace(name, real)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
