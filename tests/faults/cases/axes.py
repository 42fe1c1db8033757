"""AX: a norm over the wrong axes, or of the wrong size."""

from __future__ import annotations

from corpus import DOES_NOT_RUN, Case

CASES = [
    Case(
        id="AX02",
        status="ack",
        mode="SD",
        codes=("ND116",),
        how="click-through model: LayerNorm over fields and embedding together",
        text="""
class SelfAttention(nn.Module):
    def __init__(self, dim, heads=2):
        super().__init__()
        self.attn = nn.MultiheadAttention(dim, heads, batch_first=True)

    def forward(self, x):
        return self.attn(x, x, x, need_weights=False)[0]


class InterHAt(nn.Module):
    def __init__(self, num_fields=8, emb_dim=16):
        super().__init__()
        self.embedding = nn.Embedding(500, emb_dim)
        self.attention = SelfAttention(emb_dim)
        self.norm = nn.LayerNorm([num_fields, emb_dim])  # fault
        self.ffn = nn.Sequential(nn.Linear(emb_dim, 32), nn.ReLU(), nn.Linear(32, emb_dim))
        self.out = nn.Linear(num_fields * emb_dim, 1)

    def forward(self, ids):
        x = self.embedding(ids)
        x = self.norm(x + self.attention(x))  # fault
        x = x + self.ffn(x)
        return torch.sigmoid(self.out(x.flatten(1)))


model = InterHAt()
inputs = torch.randint(0, 500, (4, 8))
""",
        swaps=(("nn.LayerNorm([num_fields, emb_dim])", "nn.LayerNorm(emb_dim)"),),
    ),
    Case(
        id="AX02b",
        status="ack",
        codes=("ND116",),
        how="F.layer_norm over the last two axes of (batch, time, features)",
        text="""
class Encoder(nn.Module):
    def __init__(self, d=32):
        super().__init__()
        self.inp = nn.Linear(12, d)
        self.mix = nn.GRU(d, d, batch_first=True)
        self.out = nn.Linear(d, 4)

    def forward(self, x):
        h = torch.relu(self.inp(x))
        h = F.layer_norm(h + self.mix(h)[0], h.shape[1:])  # fault
        return self.out(h)


model = Encoder()
inputs = torch.randn(4, 10, 12)
""",
        swaps=(("h.shape[1:])", "h.shape[-1:])"),),
    ),
    Case(
        id="AX04",
        status="rep",
        mode="D",
        codes=("ND116",),
        how="BatchNorm1d on (batch, time, features) with as many steps as features",
        text="""
class LSTMModel(nn.Module):
    def __init__(self, feat=9, hidden=32, classes=6):
        super().__init__()
        self.lstm1 = nn.LSTM(feat, hidden, batch_first=True, bidirectional=True)
        self.bn = nn.BatchNorm1d(hidden)  # fault
        self.lin = nn.Linear(2 * hidden, hidden)
        self.lstm2 = nn.LSTM(hidden, hidden, batch_first=True)
        self.fc = nn.Linear(hidden, classes)

    def forward(self, x):
        out, _ = self.lstm1(x)
        out = F.relu(self.lin(out))
        out = self.bn(out)  # fault
        out, _ = self.lstm2(out)
        return self.fc(out[:, -1])


model = LSTMModel()
inputs = torch.randn(4, 32, 9)
""",
        swaps=(("self.bn(out)", "self.bn(out.transpose(1, 2)).transpose(1, 2)"),),
    ),
    Case(
        id="AX04b",
        status="rep",
        codes=("ND116",),
        how="BatchNorm1d between linear layers over (batch, points, features)",
        text="""
class PointMLP(nn.Module):
    def __init__(self, points=64):
        super().__init__()
        self.fc1 = nn.Linear(3, 64)
        self.bn1 = nn.BatchNorm1d(points)  # fault
        self.fc2 = nn.Linear(64, 128)
        self.fc3 = nn.Linear(128, 5)

    def forward(self, xyz):
        x = F.relu(self.bn1(self.fc1(xyz)))  # fault
        x = F.relu(self.fc2(x))
        return self.fc3(x.max(dim=1).values)


model = PointMLP()
inputs = torch.randn(2, 64, 3)
""",
        swaps=(("self.bn1(self.fc1(xyz))", "self.bn1(self.fc1(xyz).transpose(1, 2)).transpose(1, 2)"),),
    ),
    Case(
        id="AX06",
        status="fix",
        mode="D",
        codes=("ND001", DOES_NOT_RUN),
        how="LayerNorm of the embedding's size on what the trunk returns: the forward raises",
        text="""
class ReformerLM(nn.Module):
    def __init__(self, tokens=100, emb_dim=24, dim=48):
        super().__init__()
        self.token_emb = nn.Embedding(tokens, emb_dim)
        self.to_dim = nn.Linear(emb_dim, dim)
        self.trunk = nn.TransformerEncoderLayer(dim, 4, 96, batch_first=True, norm_first=True)
        self.norm = nn.LayerNorm(emb_dim)  # fault
        self.to_logits = nn.Linear(dim, tokens)

    def forward(self, x):
        x = self.to_dim(self.token_emb(x))
        x = self.norm(self.trunk(x))  # fault
        return self.to_logits(x)


model = ReformerLM()  # fault
inputs = torch.randint(0, 100, (2, 12))
""",
        swaps=(("nn.LayerNorm(emb_dim)", "nn.LayerNorm(dim)"),),
    ),
    Case(
        id="AX08",
        status="lib",
        mode="D",
        codes=("ND116",),
        how="LayerNorm(64) on maps (N, 64, H, 64): it normalizes rows of pixels",
        text="""
class Stage(nn.Module):
    def __init__(self, channels=64):
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels, 3, padding=1)
        self.norm = nn.LayerNorm(channels)  # fault
        self.conv2 = nn.Conv2d(channels, 8, 1)

    def forward(self, x):
        x = F.gelu(self.norm(self.conv1(x)))  # fault
        return self.conv2(x)


model = Stage()
inputs = torch.randn(2, 3, 64, 64)
""",
        swaps=(("nn.LayerNorm(channels)", "nn.GroupNorm(1, channels)"),),
    ),
    Case(
        id="AX-x1",
        status="own",
        codes=("ND902", "ND116"),
        how="a LayerNorm by hand that takes mean and variance over axis 0",
        text="""
class MyLayerNorm(nn.Module):
    def __init__(self, dim, eps=1e-5):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))
        self.beta = nn.Parameter(torch.zeros(dim))
        self.eps = eps

    def forward(self, x):
        mean = x.mean(0, keepdim=True)  # fault
        var = x.var(0, unbiased=False, keepdim=True)  # fault
        out = (x - mean) / torch.sqrt(var + self.eps)  # fault
        return self.gamma * out + self.beta  # fault


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.norm, self.fc2 = nn.Linear(12, 32), MyLayerNorm(32), nn.Linear(32, 3)  # fault

    def forward(self, x):
        return self.fc2(F.relu(self.norm(self.fc1(x))))  # fault


model = Net()
inputs = torch.randn(6, 12)
""",
        swaps=(("x.mean(0, ", "x.mean(-1, "), ("x.var(0, ", "x.var(-1, ")),
    ),
    Case(
        id="AX-x2",
        status="own",
        codes=("ND115",),
        how="InstanceNorm1d on (batch, features): torch takes it for one unbatched signal",
        text="""
class Tab(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(10, 32)
        self.norm = nn.InstanceNorm1d(32)  # fault
        self.fc2 = nn.Linear(32, 2)

    def forward(self, x):
        return self.fc2(F.relu(self.norm(self.fc1(x))))  # fault


model = Tab()
inputs = torch.randn(32, 10)
""",
        swaps=(("nn.InstanceNorm1d(32)", "nn.LayerNorm(32)"),),
    ),
]
