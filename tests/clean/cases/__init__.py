"""Constructs of good models that naive rules report by mistake: nothing may be said of them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Clean:
    """One model file; `id` is that of the list of constructs, or a word for what we added."""

    id: str
    source: str


HEADER = """\
import math

import torch
import torch.nn.functional as F
from torch import nn

"""


def clean(id: str, source: str) -> Clean:
    """A case with the usual imports put in front."""
    return Clean(id, HEADER + source.strip("\n") + "\n")


def all_cases() -> Iterator[Clean]:
    """The cases of every file of this folder."""
    for info in pkgutil.iter_modules(__path__):
        yield from importlib.import_module(f"{__name__}.{info.name}").CASES
