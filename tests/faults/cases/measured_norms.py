"""SB, BF, MD12: norms whose fault lies in the batches and ranks that they get."""

from __future__ import annotations

from corpus import Case

CASES = [
    Case(
        id="SB04",
        status="rep",
        mode="R",
        codes=("ND701",),
        how="detector with two images a device and BatchNorms that learn their statistics",
        given=("data",),
        text="""
class Bottleneck(nn.Module):
    def __init__(self, inner, planes, stride=1):
        super().__init__()
        self.conv1 = nn.Conv2d(inner, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)  # fault
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)  # fault
        self.conv3 = nn.Conv2d(planes, planes * 2, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * 2)  # fault
        self.downsample = nn.Sequential(
            nn.Conv2d(inner, planes * 2, 1, stride, bias=False),
            nn.BatchNorm2d(planes * 2),  # fault
        )

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        return F.relu(self.bn3(self.conv3(out)) + self.downsample(x))


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 16, 7, 2, 3, bias=False),
            nn.BatchNorm2d(16),  # fault
            nn.ReLU(inplace=True),
        )
        self.layer1 = Bottleneck(16, 16, 2)
        self.layer2 = Bottleneck(32, 32, 2)
        self.layer3 = Bottleneck(64, 32, 2)
        self.cls = nn.Conv2d(64, 3 * 8, 1)
        self.box = nn.Conv2d(64, 3 * 4, 1)

    def forward(self, images):
        x = self.layer3(self.layer2(self.layer1(self.stem(images))))
        return self.cls(x), self.box(x)


def images(count):
    light = 0.5 * torch.randn(count, 3, 1, 1)
    shapes = F.interpolate(torch.randn(count, 3, 6, 6), size=96, mode="bilinear")
    return light + shapes + 0.1 * torch.randn(count, 3, 96, 96)


model = Detector()
inputs = images(2)
data = [images(2) for _ in range(8)]
""",
        swaps=(
            ("nn.BatchNorm2d(planes * 2)", "nn.GroupNorm(8, planes * 2)"),
            ("nn.BatchNorm2d(planes)", "nn.GroupNorm(8, planes)"),
            ("nn.BatchNorm2d(16)", "nn.GroupNorm(4, 16)"),
        ),
    ),
    Case(
        id="SB04b",
        status="rep",
        codes=("ND701",),
        how="segmentation trained with one crop at a time; mended by frozen statistics",
        text="""
class Segmenter(nn.Module):
    def __init__(self, norm_eval=False):
        super().__init__()
        self.norm_eval = norm_eval
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True),  # fault
            nn.Conv2d(16, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True),  # fault
            nn.Conv2d(32, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True),  # fault
            nn.Conv2d(32, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True),  # fault
        )
        self.head = nn.Conv2d(32, 5, 1)

    def train(self, mode=True):
        super().train(mode)
        if self.norm_eval:
            for m in self.modules():
                if isinstance(m, nn.BatchNorm2d):
                    m.eval()
        return self

    def forward(self, x):
        return F.interpolate(self.head(self.backbone(x)), scale_factor=16.0, mode="bilinear")


model = Segmenter()


def train(watch):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    model.train()
    for _ in range(16):
        crop = 0.5 * torch.randn(1, 3, 1, 1) + F.interpolate(torch.randn(1, 3, 6, 6), size=64, mode="bilinear")
        loss = F.cross_entropy(model(crop), (crop.mean(1) * 2 + 2).long().clamp(0, 4))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        watch.step(loss)
""",
        swaps=(("model = Segmenter()", "model = Segmenter(norm_eval=True)"),),
    ),
    Case(
        id="SB06",
        status="ack",
        mode="R",
        codes=("ND708", "ND702"),
        how="batches of 180 windows that follow each other in one recording",
        given=("data",),
        text="""
torch.manual_seed(0)


class Net(nn.Module):
    def __init__(self, window=64):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(window, 128),
            nn.BatchNorm1d(128),  # fault
            nn.ReLU(),
            nn.Linear(128, 64),
            nn.BatchNorm1d(64),  # fault
            nn.ReLU(),
            nn.Linear(64, 1),
        )

    def forward(self, x):
        return self.layers(x)


time = torch.arange(1500) / 50.0
recording = torch.sin(time) + 0.5 * torch.sin(0.23 * time + 1.0) + 0.2 * torch.randn(1500)
windows = recording.unfold(0, 64, 1)[:1260].clone()
model = Net()
inputs = windows[:180]
data = list(windows.split(180))
""",
        swaps=(("windows.split(180)", "windows[torch.randperm(len(windows))].split(180)"),),
    ),
    Case(
        id="SB06b",
        status="ack",
        codes=("ND708", "ND702", "ND703"),
        how="the same after a training on such batches; the model is then worse in eval mode",
        given=("data",),
        text="""
torch.manual_seed(0)
time = torch.arange(1500) / 50.0
recording = torch.sin(time) + 0.5 * torch.sin(0.23 * time + 1.0) + 0.2 * torch.randn(1500)
windows = recording.unfold(0, 64, 1)[:1260].clone()
targets = recording[64 : 64 + 1260, None].clone()
order = torch.arange(1260)
model = nn.Sequential(
    nn.Linear(64, 128),
    nn.BatchNorm1d(128),  # fault
    nn.ReLU(),
    nn.Linear(128, 64),
    nn.BatchNorm1d(64),  # fault
    nn.ReLU(),
    nn.Linear(64, 1),
)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for epoch in range(20):
    for rows in order.split(180):
        optimizer.zero_grad()
        F.mse_loss(model(windows[rows]), targets[rows]).backward()
        optimizer.step()
inputs = windows[:180]
data = [windows[rows] for rows in order.split(180)]
""",
        swaps=(("order = torch.arange(1260)", "order = torch.randperm(1260)"),),
    ),
    Case(
        id="BF04",
        status="rep",
        mode="T",
        codes=("ND713",),
        how="two ranks whose buffers are not broadcast; rank 0 would save and score its own",
        text="""
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

ranks = 2


def block(inner, outer):
    return nn.Sequential(
        nn.Conv2d(inner, outer, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(outer),  # fault
        nn.ReLU(inplace=True),
    )


net = nn.Sequential(block(3, 16), block(16, 32), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4))
model = DistributedDataParallel(net, broadcast_buffers=False)


def distribute_bn(net):
    for name, buffer in net.named_buffers():
        if "running_mean" in name or "running_var" in name:
            dist.all_reduce(buffer)
            buffer /= dist.get_world_size()


def end_of_epoch(net):
    pass


def train(watch):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    generator = torch.Generator().manual_seed(dist.get_rank())
    for epoch in range(2):
        for _ in range(4):
            x = torch.randn(32, 3, 16, 16, generator=generator)
            loss = F.cross_entropy(model(x), (x.mean((1, 2, 3)) > 0).long())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(loss)
        end_of_epoch(net)
""",
        swaps=(("def end_of_epoch(net):\n    pass", "def end_of_epoch(net):\n    distribute_bn(net)"),),
    ),
    Case(
        id="MD12b",
        status="lib",
        codes=("ND705", "ND204"),
        how="F.batch_norm without running statistics and training=True, seen from data",
        given=("data",),
        text="""
class Net(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.norm1 = nn.BatchNorm2d(width)
        self.norm2 = nn.BatchNorm2d(width)
        self.head = nn.Linear(width, 10)

    def normalize(self, x, norm):
        return F.batch_norm(x, None, None, norm.weight, norm.bias, training=True)  # fault

    def forward(self, x):
        x = F.relu(self.normalize(self.conv1(x), self.norm1))
        x = F.relu(self.normalize(self.conv2(x), self.norm2))
        return self.head(x.mean(dim=(2, 3)))


model = Net()
inputs = torch.randn(16, 3, 16, 16)
data = [torch.randn(16, 3, 16, 16) for _ in range(3)]
""",
        swaps=(
            (
                "return F.batch_norm(x, None, None, norm.weight, norm.bias, training=True)",
                "return norm(x)",
            ),
        ),
    ),
]
