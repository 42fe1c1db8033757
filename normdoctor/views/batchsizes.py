"""The small-batch advisor's figures: how sure each BatchNorm's statistics are at a batch size."""

from __future__ import annotations

import math

import msgspec

#: The batch sizes that are shown.
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class BatchSizes(msgspec.Struct, frozen=True, kw_only=True):
    """One BatchNorm, as measured on data.

    Args:
        module: Its path, or that of the module in whose forward a function stands.
        call: Which of the calls of its kind there it is, from 0.
        channels: How many channels it normalizes.
        positions: How many values a sample has in each channel.
        samples: From how many samples the figures are.
        per_sample: How many independent values one sample is worth: Var(x) / Var(mean of one sample).
        batch: The batch size of the training, as stated or seen.
        passes: The smallest batch size whose mean is sure enough (ND701).
        instead: What fits where the batch cannot be that large; empty where it is.
    """

    module: str
    call: int
    channels: int
    positions: int
    samples: int
    per_sample: float
    batch: int
    passes: int
    instead: str = ""

    def n_eff(self, batch: int) -> float:
        """How many independent values a batch of this size is worth."""
        return self.per_sample * batch

    def error_of_mean(self, batch: int) -> float:
        """The standard error of the mean of such a batch, in standard deviations of the values."""
        return 1.0 / math.sqrt(self.n_eff(batch))
