"""Faults that show only in what a model computes from data."""

from __future__ import annotations

from corpus import Case

CASES = [
    Case(
        id="SX10",
        status="rep",
        mode="R",
        codes=("ND613",),
        how="selective kernel over a spectral and a spatial branch: both attention vectors come from one layer",
        given=("data",),
        text="""
class Selective(nn.Module):
    def __init__(self, channels=24, reduced=8):
        super().__init__()
        self.spectral = nn.Sequential(nn.Conv3d(1, channels, (7, 1, 1), padding=(3, 0, 0)), nn.BatchNorm3d(channels), nn.ReLU(inplace=True))
        self.spatial = nn.Sequential(nn.Conv3d(1, channels, (1, 3, 3), padding=(0, 1, 1)), nn.BatchNorm3d(channels), nn.ReLU(inplace=True))
        self.pool = nn.AdaptiveAvgPool3d(1)
        self.squeeze = nn.Sequential(nn.Conv3d(channels, reduced, 1), nn.BatchNorm3d(reduced), nn.ReLU(inplace=True))
        self.expand_first = nn.Conv3d(reduced, channels, 1)
        self.expand_second = nn.Conv3d(reduced, channels, 1)
        self.softmax = nn.Softmax(dim=1)  # fault
        self.head = nn.Linear(channels, 9)

    def forward(self, x):
        branches = torch.stack([self.spectral(x), self.spatial(x)], dim=1)
        squeezed = self.squeeze(self.pool(branches.sum(dim=1)))
        vectors = torch.stack([self.expand_first(squeezed), self.expand_first(squeezed)], dim=1)
        merged = (branches * self.softmax(vectors)).sum(dim=1)
        return self.head(merged.mean(dim=(2, 3, 4)))


model = Selective()
inputs = torch.randn(8, 1, 12, 7, 7)
data = [torch.randn(64, 1, 12, 7, 7) for _ in range(4)]
""",
        swaps=(
            (
                "[self.expand_first(squeezed), self.expand_first(squeezed)]",
                "[self.expand_first(squeezed), self.expand_second(squeezed)]",
            ),
        ),
    ),
    Case(
        id="AC08",
        status="rep",
        mode="R",
        codes=("ND602",),
        how="the size head of a detector ends in a ReLU that is always off",
        given=("data",),
        text="""
class Detector(nn.Module):
    def __init__(self, base=16.0):
        super().__init__()
        self.base = base
        self.trunk = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(inplace=True))
        self.heat = nn.Conv2d(32, 10, 1)
        self.size = nn.Conv2d(32, 4, 1)
        nn.init.normal_(self.size.weight, std=0.001)
        nn.init.constant_(self.size.bias, -2.0)

    def forward(self, x):
        x = self.trunk(x)
        sizes = F.relu(self.size(x)) * self.base  # fault
        return self.heat(x), sizes


model = Detector()
inputs = torch.randn(4, 3, 16, 16)
data = [torch.randn(4, 3, 16, 16) for _ in range(4)]
""",
        swaps=(("F.relu(self.size(x))", "F.softplus(self.size(x))"),),
    ),
    Case(
        id="AC08b",
        status="rep",
        codes=("ND602",),
        how="the size head dies in the training, at a rate that is too high for it",
        text="""
class Detector(nn.Module):
    def __init__(self, base=16.0):
        super().__init__()
        self.base = base
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(inplace=True),
            nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(inplace=True),
        )
        self.heat = nn.Conv2d(32, 3, 1)
        self.wh = nn.Conv2d(32, 4, 1)
        nn.init.normal_(self.wh.weight, std=0.001)
        nn.init.zeros_(self.wh.bias)

    def forward(self, x):
        x = self.trunk(x)
        wh = F.relu(self.wh(x)) * self.base  # fault
        return self.heat(x), wh


model = Detector()


def train(watch):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.005, momentum=0.9)
    for _ in range(40):
        image = torch.randn(16, 3, 16, 16)
        labels = F.avg_pool2d(image, 2).argmax(1)
        sizes = 4 + torch.rand(16, 4, 8, 8)
        heat, wh = model(image)
        loss = F.cross_entropy(heat, labels) + 5 * F.l1_loss(wh, sizes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        watch.step(loss)
""",
        swaps=(("F.relu(self.wh(x)) * self.base", "F.softplus(self.wh(x)) * self.base"),),
    ),
]
