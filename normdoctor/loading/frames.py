"""Which line of the user's a call comes from."""

from __future__ import annotations

import os
from types import CodeType, FrameType

import torch

from normdoctor.facts import Location
from normdoctor.loading.origins import resolve

_TORCH = os.path.dirname(torch.__file__) + os.sep
_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
#: Here a recording begins: what called it is not part of the forward.
_BORDER = os.path.join(_OURS, "tracing", "recording.py")
_outside: dict[CodeType, bool] = {}


def is_outside(code: CodeType) -> bool:
    """Is this code neither torch's nor normdoctor's?"""
    known = _outside.get(code)
    if known is None:
        name = code.co_filename
        known = not (name.startswith((_TORCH, _OURS, "<frozen")) or name == "<string>")
        _outside[code] = known
    return known


def caller(frame: FrameType | None) -> tuple[CodeType | None, int]:
    """The innermost frame of the forward outside torch and normdoctor, as code and offset."""
    while frame is not None and frame.f_code.co_filename != _BORDER:
        if is_outside(frame.f_code):
            return frame.f_code, frame.f_lasti
        frame = frame.f_back
    return None, 0


def location(code: CodeType | None, offset: int) -> Location | None:
    """The span of the expression that an instruction belongs to."""
    return None if code is None or offset < 0 else resolve(code, offset)
