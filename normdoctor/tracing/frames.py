"""Which line of the user's a call comes from: frames in, source spans out."""

from __future__ import annotations

import linecache
import os
from functools import lru_cache
from itertools import islice
from types import CodeType, FrameType

import torch

from normdoctor.facts import Location

_TORCH = os.path.dirname(torch.__file__) + os.sep
_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
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
    """The innermost frame outside torch and normdoctor, as code and instruction offset."""
    while frame is not None:
        if is_outside(frame.f_code):
            return frame.f_code, frame.f_lasti
        frame = frame.f_back
    return None, 0


@lru_cache(maxsize=65536)
def location(code: CodeType | None, offset: int) -> Location | None:
    """The span of an instruction's expression, columns counted in characters from 1."""
    if code is None or offset < 0:
        return None
    positions = next(islice(code.co_positions(), offset // 2, None), None)
    if positions is None or positions[0] is None:
        return Location(code.co_filename, code.co_firstlineno)
    line, end_line, column, end_column = positions
    end_line = end_line or line
    return Location(
        code.co_filename,
        line,
        _characters(code.co_filename, line, column),
        end_line,
        _characters(code.co_filename, end_line, end_column),
    )


def _characters(file: str, line: int, column: int | None) -> int:
    """A 1-based column in characters from a 0-based one in UTF-8 bytes."""
    if column is None:
        return 1
    text = linecache.getline(file, line)
    if text.isascii():
        return column + 1
    return len(text.encode()[:column].decode(errors="replace")) + 1
