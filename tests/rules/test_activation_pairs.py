"""ND302 where one activation is part of something else."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from normdoctor import check


class Sparse(nn.Module):
    """The features above a threshold of their own pass; then an activation."""

    def __init__(self, threshold):
        super().__init__()
        self.up, self.threshold = nn.Linear(8, 32), threshold

    def forward(self, x):
        x = self.up(x)
        return F.gelu(torch.relu(x - x.mean(-1, keepdim=True)) if self.threshold else torch.relu(x))


@pytest.mark.parametrize(("threshold", "found"), [(False, ["ND302"]), (True, [])])
def test_a_threshold_is_no_activation(threshold, found):
    report = check(Sparse(threshold), torch.zeros(2, 8), select="ND302")
    assert [finding.code for finding in report.findings] == found
