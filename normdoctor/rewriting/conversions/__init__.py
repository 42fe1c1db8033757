"""The conversions that `normdoctor.convert` knows: one class in one file of this folder each."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from normdoctor.errors import UsageError
from normdoctor.normwords import near_norms
from normdoctor.rewriting.conversions.base import Conversion


@cache
def all_conversions() -> dict[str, type[Conversion]]:
    """Every conversion by its spec, such as `"batch->group"`."""
    found: dict[str, type[Conversion]] = {}
    for info in pkgutil.iter_modules(__path__, prefix=f"{__name__}."):
        for value in vars(importlib.import_module(info.name)).values():
            if isinstance(value, type) and issubclass(value, Conversion) and value.__module__ == info.name:
                found.update({value.spec: value} if value.spec else {})
    return dict(sorted(found.items()))


def find_conversion(spec: str) -> type[Conversion]:
    """The conversion of this spec; spaces do not count."""
    known = all_conversions()
    wanted = spec.replace(" ", "") if isinstance(spec, str) else spec
    for conversion in known.values():
        if wanted == conversion.spec or wanted in conversion.aliases:
            return conversion
    listed = ", ".join(f"`{name}`" for name in known)
    raise UsageError(
        f"expected a conversion that exists ({listed}), found {spec!r}",
        hint=near_norms(str(spec), list(known)),
    )
