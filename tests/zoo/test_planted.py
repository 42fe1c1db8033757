"""A fault planted in somebody else's ResNet-50: exactly that finding, at the line that plants it."""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path

import pytest

import normdoctor

pytestmark = pytest.mark.zoo

HEAD = """\
import torch
from torch import nn
from torch.nn import functional as F

import torchvision

inputs = torch.zeros(2, 3, 224, 224)
model = torchvision.models.resnet50(weights=None)
"""

#: code -> the lines that plant it (below the head); the line to be pointed at ends in `# HERE`.
FAULTS = {
    "ND101": """
        model.layer2[1].conv1 = nn.Conv2d(512, 128, 1)  # HERE
    """,
    "ND102": """
        model.bn1 = nn.Sequential(nn.Dropout(0.2), nn.BatchNorm2d(64))  # HERE
    """,
    "ND105": """
        class Twice(nn.Module):
            def __init__(self):
                super().__init__()
                self.first = nn.Conv2d(64, 64, 1, bias=False)
                self.second = nn.Conv2d(64, 64, 3, padding=1, bias=False)
                self.norm = nn.BatchNorm2d(64)  # HERE

            def forward(self, x):
                return F.relu(self.norm(self.second(F.relu(self.norm(self.first(x))))))

        model.maxpool = nn.Sequential(model.maxpool, Twice())
    """,
    "ND109": """
        class Forgetful(nn.Module):
            def __init__(self):
                super().__init__()
                self.conv = nn.Conv2d(64, 64, 3, padding=1, bias=False)
                self.norm = nn.BatchNorm2d(64)  # HERE

            def forward(self, x):
                return F.relu(self.conv(x))

        model.maxpool = nn.Sequential(model.maxpool, Forgetful())
    """,
    "ND114": """
        model.avgpool = nn.Sequential(model.avgpool, nn.GroupNorm(2048, 2048))  # HERE
    """,
    "ND201": """
        model.layer3[0].bn2 = nn.BatchNorm2d(256, 256)  # HERE
    """,
    "ND202": """
        model.layer3[0].bn2 = nn.BatchNorm2d(256, momentum=0.99)  # HERE
    """,
    "ND301": """
        model.fc = nn.Sequential(nn.Linear(2048, 2048), nn.Linear(2048, 1000))  # HERE
    """,
    "ND302": """
        model.relu = nn.Sequential(nn.Sigmoid(), nn.Sigmoid())  # HERE
    """,
    "ND310": """
        model.fc = nn.Sequential(nn.Linear(2048, 1000), nn.Softmax(dim=1))  # HERE
        criterion = nn.CrossEntropyLoss()


        def step(x, y):
            return criterion(model(x), y)
    """,
    "ND315": """
        class Block(nn.Module):
            def __init__(self):
                super().__init__()
                self.relu = nn.ReLU(inplace=True)  # HERE
                self.conv = nn.Conv2d(64, 64, 3, padding=1)

            def forward(self, x):
                return x + self.conv(self.relu(x))

        model.maxpool = nn.Sequential(model.maxpool, nn.Conv2d(64, 64, 1), nn.LeakyReLU(0.1), Block())
    """,
    "ND401": """
        nn.init.constant_(model.layer2[0].conv1.weight, 0.01)
    """,
    "ND405": """
        class Scaled(nn.Module):
            def __init__(self):
                super().__init__()
                self.mix = nn.Parameter(torch.empty(1000, 1000))  # HERE

            def forward(self, x):
                return x @ self.mix

        model.fc = nn.Sequential(model.fc, nn.Tanh(), Scaled())
    """,
    "ND502": """
        class Hidden(nn.Module):
            def __init__(self):
                super().__init__()
                self.layers = [nn.Conv2d(64, 64, 3, padding=1)]  # HERE

            def forward(self, x):
                return F.relu(self.layers[0](x))

        model.maxpool = nn.Sequential(model.maxpool, Hidden())
    """,
}


@pytest.mark.parametrize("code", sorted(FAULTS))
def test_exactly_the_planted_fault_is_found(code: str, tmp_path: Path) -> None:
    text = HEAD + textwrap.dedent(FAULTS[code])
    file = tmp_path / "model.py"
    file.write_text(text)
    report = normdoctor.check(f"{file}:model")
    assert not report.problems
    assert [finding.code for finding in report.findings] == [code], str(report)
    (finding,) = report.findings
    assert finding.location is not None
    marked = [number for number, line in enumerate(text.splitlines(), 1) if line.endswith("# HERE")]
    if marked:
        assert finding.location.file == str(file)
        assert [finding.location.line] == marked
        span = text.splitlines()[finding.location.line - 1]
        span = span[finding.location.column - 1 : finding.location.end_column - 1]
        assert isinstance(ast.parse(span, mode="eval").body, ast.Call | ast.List), span
