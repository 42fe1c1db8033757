"""How the data end: the size of the last batch, which a norm may be unable to take."""

from __future__ import annotations

from typing import Any

from normdoctor.probing.study import Studied


class LastBatch:
    """The sizes of the batches that a loader makes, from its arithmetic."""

    need = "loader"

    def run(self, studied: Studied) -> dict[str, Any]:
        """`samples`, `batch_size`, `drop_last` and `last` (the size of the last batch) of a DataLoader.

        Empty for other data; `refused` counts the batches seen that a BatchNorm could not take.
        """
        found: dict[str, Any] = {}
        loader = studied.feed.data
        size = getattr(loader, "batch_size", None)
        if isinstance(size, int) and size > 0 and hasattr(loader, "drop_last"):
            samples = _length(getattr(loader, "sampler", None))
            if samples is not None:
                last = samples % size or min(size, samples)
                found = {
                    "samples": samples, "batch_size": size, "drop_last": bool(loader.drop_last), "last": last
                }  # fmt: skip
        found["refused"] = int(studied.measured.get("run", {}).get("refused", 0))
        return {"data": found}


def _length(sampler: Any) -> int | None:
    try:
        return len(sampler)
    except (TypeError, NotImplementedError):
        return None
