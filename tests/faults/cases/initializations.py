"""IN: parameters that start at the wrong values, or at none."""

from __future__ import annotations

from corpus import Case

CASES = [
    Case(
        id="IN02",
        status="rep",
        codes=("ND408", "ND403"),
        how="the focal-loss bias of the class head lands on every convolution",
        text="""
import math


class Regressor(nn.Module):
    def __init__(self, c=32):
        super().__init__()
        self.conv1 = nn.Conv2d(c, c, 3, padding=1)  # fault
        self.conv2 = nn.Conv2d(c, c, 3, padding=1)  # fault
        self.header = nn.Conv2d(c, 9, 3, padding=1)

    def forward(self, x):
        return self.header(F.relu(self.conv2(F.relu(self.conv1(x)))))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.classifier = Regressor()

    def forward(self, x):
        return self.classifier(self.backbone(x))


def init_weights(model):
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight)
            if module.bias is not None:
                if "header" or "classifier.header" in name:
                    nn.init.constant_(module.bias, -math.log((1 - 0.01) / 0.01) * 2)  # fault
                else:
                    nn.init.zeros_(module.bias)


model = Net()
init_weights(model)
inputs = torch.randn(2, 3, 32, 32)
""",
        swaps=(('if "header" or "classifier.header" in name:', 'if "header" in name:'),),
    ),
    Case(
        id="IN04",
        status="PR",
        codes=("ND403", "ND409", "ND410"),
        how="trunc_normal_ of std 0.02 with the default bounds of two: nothing is cut",
        text="""
class Mixer(nn.Module):
    def __init__(self, d=64):
        super().__init__()
        self.fc1 = nn.Linear(d, 4 * d)  # fault
        self.fc2 = nn.Linear(4 * d, d)  # fault
        self.norm = nn.LayerNorm(d)
        self.apply(self._init)

    @staticmethod
    def _init(m):
        if isinstance(m, nn.Linear):
            nn.init.trunc_normal_(m.weight, std=0.02)  # fault
            nn.init.zeros_(m.bias)

    def forward(self, x):
        return x + self.fc2(F.gelu(self.fc1(self.norm(x))))


model = Mixer()
inputs = torch.randn(2, 6, 64)
""",
        swaps=(("std=0.02)", "std=0.02, a=-0.04, b=0.04)"),),
    ),
    Case(
        id="IN06",
        status="rep",
        codes=("ND404",),
        how="weights from torch.rand: all positive",
        text="""
class SoftArchetypes(nn.Module):
    def __init__(self, context=12, archetypes=16, out=8):
        super().__init__()
        self.encoder = nn.Linear(context, archetypes)
        self.archetypes = nn.Parameter(torch.rand(archetypes, out))  # fault

    def forward(self, c):
        z = torch.softmax(self.encoder(c), dim=-1)
        return z @ self.archetypes  # fault


model = SoftArchetypes()
inputs = torch.randn(4, 12)
""",
        swaps=(("torch.rand(archetypes, out)", "0.1 * (torch.rand(archetypes, out) * 2 - 1)"),),
    ),
    Case(
        id="IN06b",
        status="rep",
        codes=("ND404",),
        how="nn.init.uniform_ with its defaults, 0 to 1, on every layer",
        text="""
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(20, 40), nn.Linear(40, 40), nn.Linear(40, 2)])  # fault
        for layer in self.layers:
            nn.init.uniform_(layer.weight)  # fault
            nn.init.zeros_(layer.bias)

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = torch.tanh(layer(x))
        return self.layers[-1](x)


model = Net()
inputs = torch.randn(4, 20)
""",
        swaps=(("nn.init.uniform_(layer.weight)", "nn.init.xavier_uniform_(layer.weight)"),),
    ),
    Case(
        id="IN08",
        status="ack",
        codes=("ND405",),
        how="a token made of torch.empty and concatenated to the features",
        text="""
class Stale(nn.Module):
    def __init__(self, d=64):
        super().__init__()
        self.proj = nn.Linear(32, d)
        self.bg_embeddings = nn.Parameter(torch.empty(1, d))  # fault
        self.scale = nn.Parameter(torch.ones([]))

    def forward(self, feats, text):
        x = self.proj(feats)
        text = torch.cat([text, self.bg_embeddings], dim=0)
        x = F.normalize(x, dim=-1)
        text = F.normalize(text, dim=-1)
        return self.scale * x @ text.t()


model = Stale()
inputs = (torch.randn(2, 10, 32), torch.randn(5, 64))
""",
        swaps=(
            (
                "        self.scale =",
                "        nn.init.normal_(self.bg_embeddings, std=0.01)\n        self.scale =",
            ),
        ),
    ),
    Case(
        id="IN08b",
        status="ack",
        codes=("ND405",),
        how="one of two parameters is forgotten in reset_parameters",
        text="""
class Bilinear(nn.Module):
    def __init__(self, d=16):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(d, d))
        self.temperature = nn.Parameter(torch.empty(d))  # fault
        self.reset_parameters()

    def reset_parameters(self):
        nn.init.xavier_normal_(self.weight)

    def forward(self, a, b):
        return torch.einsum("bi,ij,bj->b", a * self.temperature, self.weight, b)


class Matcher(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(8, 16), nn.Linear(8, 16)
        self.score = Bilinear()

    def forward(self, a, b):
        return self.score(torch.tanh(self.left(a)), torch.tanh(self.right(b)))


model = Matcher()
inputs = (torch.randn(4, 8), torch.randn(4, 8))
""",
        swaps=(
            (
                "nn.init.xavier_normal_(self.weight)\n",
                "nn.init.xavier_normal_(self.weight)\n        nn.init.ones_(self.temperature)\n",
            ),
        ),
    ),
    Case(
        id="IN10",
        status="rep",
        codes=("ND405",),
        how="nn.Parameter(torch.Tensor(...)) in a graph attention layer",
        text="""
class GATLayer(nn.Module):
    def __init__(self, cin=8, out=16, heads=2):
        super().__init__()
        self.heads, self.out = heads, out
        self.linear_proj = nn.Linear(cin, heads * out, bias=False)
        self.scoring_src = nn.Parameter(torch.Tensor(1, heads, out))
        self.scoring_trg = nn.Parameter(torch.Tensor(1, heads, out))  # fault
        self.bias = nn.Parameter(torch.Tensor(heads * out))  # fault
        self.init_params()

    def init_params(self):
        nn.init.xavier_uniform_(self.linear_proj.weight)
        nn.init.xavier_uniform_(self.scoring_src)

    def forward(self, x, adjacency):
        h = self.linear_proj(x).view(-1, self.heads, self.out)
        src = (h * self.scoring_src).sum(-1)
        trg = (h * self.scoring_trg).sum(-1)
        e = F.leaky_relu(src.unsqueeze(1) + trg.unsqueeze(0), 0.2)
        a = torch.softmax(e.masked_fill(adjacency.unsqueeze(-1) == 0, -1e9), dim=1)
        return F.elu(torch.einsum("nmh,mhf->nhf", a, h).flatten(1) + self.bias)


model = GATLayer()
inputs = (torch.randn(7, 8), torch.ones(7, 7))
""",
        swaps=(
            (
                "nn.init.xavier_uniform_(self.scoring_src)\n",
                "nn.init.xavier_uniform_(self.scoring_src)\n        nn.init.xavier_uniform_(self.scoring_trg)\n        nn.init.zeros_(self.bias)\n",
            ),
        ),
    ),
    Case(
        id="IN12",
        status="rep",
        codes=("ND411",),
        how="perceptual loss net, frozen and never loaded",
        text="""
class VGGFeatures(nn.Module):
    def __init__(self, weights=None):
        super().__init__()
        self.conv_4_3 = nn.Sequential(  # fault
            nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        )  # fault
        if weights is not None:
            self.load_state_dict(weights)
        for param in self.conv_4_3.parameters():
            param.requires_grad = False

    def forward(self, x):
        return self.conv_4_3(x)


model = VGGFeatures()
inputs = torch.randn(2, 3, 32, 32)
""",
        swaps=(
            (
                "model = VGGFeatures()",
                "trained = {k: v + 0.1 for k, v in VGGFeatures().state_dict().items()}\nmodel = VGGFeatures(trained)",
            ),
        ),
    ),
    Case(
        id="IN-x1",
        status="own",
        codes=("ND401", "ND405"),
        how="all hidden weights start at one value",
        text="""
def init(m):
    if isinstance(m, nn.Linear):
        nn.init.constant_(m.weight, 0.1)  # fault
        nn.init.zeros_(m.bias)


model = nn.Sequential(
    nn.Linear(16, 32),  # fault
    nn.ReLU(),
    nn.Linear(32, 32),  # fault
    nn.ReLU(),
    nn.Linear(32, 3),  # fault
)
model.apply(init)
inputs = torch.randn(4, 16)
""",
        swaps=(("nn.init.constant_(m.weight, 0.1)", "nn.init.kaiming_normal_(m.weight)"),),
    ),
    Case(
        id="IN-x2",
        status="own",
        codes=("ND403",),
        how="standard normal weights in a deep ReLU net without norms",
        text="""
class Deep(nn.Module):
    def __init__(self, d=256, depth=6):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(d, d) for _ in range(depth)])  # fault
        self.out = nn.Linear(d, 3)  # fault
        for m in self.modules():
            if isinstance(m, nn.Linear):
                m.weight.data.normal_(0, 1)  # fault
                m.bias.data.zero_()

    def forward(self, x):
        for layer in self.layers:
            x = F.relu(layer(x))
        return self.out(x)


model = Deep()
inputs = torch.randn(4, 256)
""",
        swaps=(("m.weight.data.normal_(0, 1)", "m.weight.data.normal_(0, (2 / m.in_features) ** 0.5)"),),
    ),
    Case(
        id="IN-x3",
        status="own",
        codes=("ND406", "ND401"),
        how="the second half of the filters is a copy of the first",
        text="""
class Widened(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3)  # fault
        self.conv2 = nn.Conv2d(16, 4, 3)
        with torch.no_grad():
            self.conv1.weight[8:] = self.conv1.weight[:8]  # fault
            self.conv1.bias.zero_()

    def forward(self, x):
        return self.conv2(F.relu(self.conv1(x)))


model = Widened()
inputs = torch.randn(2, 3, 12, 12)
""",
        swaps=(
            (
                "self.conv1.weight[8:] = self.conv1.weight[:8]",
                "self.conv1.weight[8:] = 0.2 * torch.randn(8, 3, 3, 3)",
            ),
        ),
    ),
]
