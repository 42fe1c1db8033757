"""FP: norms in half precision."""

from __future__ import annotations

from corpus import Case

CASES = [
    Case(
        id="FP02",
        status="lib",
        mode="SR",
        codes=("ND203",),
        how="F.normalize of embeddings in a model cast to half: eps is 0 there",
        text="""
class Embedder(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(32, 64)
        self.fc2 = nn.Linear(64, 16)

    def forward(self, x):
        z = self.fc2(F.relu(self.fc1(x)))
        return F.normalize(z, dim=-1)  # fault


model = Embedder().half()
inputs = torch.randn(4, 32).half()
""",
        swaps=(("F.normalize(z, dim=-1)", "F.normalize(z, dim=-1, eps=1e-4)"),),
    ),
    Case(
        id="FP02b",
        status="lib",
        codes=("ND608",),
        how="the same at run time: a bag of words of padding only is a row of zeros, and becomes NaN",
        given=("data",),
        text="""
class Retriever(nn.Module):
    def __init__(self, words=200, dim=32):
        super().__init__()
        self.embed = nn.Embedding(words, dim, padding_idx=0)
        self.proj = nn.Linear(dim, 16, bias=False)

    def forward(self, ids):
        bag = self.embed(ids).sum(dim=1)
        return F.normalize(self.proj(bag), dim=-1)  # fault


model = Retriever().half()
inputs = torch.randint(1, 200, (8, 6))
data = [torch.randint(1, 200, (8, 6)) for _ in range(4)]
data[2][3] = 0
""",
        swaps=(("dim=-1)", "dim=-1, eps=1e-4)"),),
    ),
    Case(
        id="FP04",
        status="PR",
        codes=("ND203",),
        how="LayerNorm with eps 1e-12 in a transformer in half precision",
        text="""
LAYER_NORM_EPS = 1e-12


class Layer(nn.Module):
    def __init__(self, d=32):
        super().__init__()
        self.attention = nn.MultiheadAttention(d, 4, batch_first=True)
        self.norm1 = nn.LayerNorm(d, eps=LAYER_NORM_EPS)  # fault
        self.ffn = nn.Sequential(nn.Linear(d, 64), nn.GELU(), nn.Linear(64, d))
        self.norm2 = nn.LayerNorm(d, eps=LAYER_NORM_EPS)  # fault

    def forward(self, x):
        x = self.norm1(x + self.attention(x, x, x, need_weights=False)[0])
        return self.norm2(x + self.ffn(x))


model = nn.Sequential(Layer(), Layer()).half()
inputs = torch.randn(2, 6, 32).half()
""",
        swaps=(("LAYER_NORM_EPS = 1e-12", "LAYER_NORM_EPS = 1e-5"),),
    ),
    Case(
        id="FP06",
        status="lib",
        mode="R",
        codes=("ND907",),
        how="RMS norm by hand that squares in half precision",
        text="""
class LlamaRMSNorm(nn.Module):
    def __init__(self, dim, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x):
        variance = x.pow(2).mean(-1, keepdim=True)  # fault
        return self.weight * (x * torch.rsqrt(variance + self.eps))  # fault


class Mlp(nn.Module):
    def __init__(self, d=32):
        super().__init__()
        self.norm = LlamaRMSNorm(d)  # fault
        self.gate, self.up, self.down = nn.Linear(d, 64), nn.Linear(d, 64), nn.Linear(64, d)

    def forward(self, x):
        h = self.norm(x)  # fault
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


model = Mlp().half()
inputs = torch.randn(2, 5, 32).half()
""",
        swaps=(
            (
                "        variance = x.pow(2).mean(-1, keepdim=True)\n        return self.weight * (x * torch.rsqrt(variance + self.eps))\n",
                "        h = x.float()\n        h = h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + self.eps)\n        return self.weight * h.to(x.dtype)\n",
            ),
        ),
    ),
    Case(
        id="FP06b",
        status="lib",
        codes=("ND608", "ND609"),
        how="the same at run time: a feature of the residual stream is beyond 255",
        given=("data",),
        text="""
class RMSNorm(nn.Module):
    def __init__(self, dim, eps=1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))  # fault


class Block(nn.Module):
    def __init__(self, d=32):
        super().__init__()
        self.norm = RMSNorm(d)  # fault
        self.up, self.down = nn.Linear(d, 64), nn.Linear(64, d)

    def forward(self, x):
        return x + self.down(F.silu(self.up(self.norm(x))))


model = nn.Sequential(Block(), Block()).half()
inputs = torch.randn(2, 5, 32).half()


def stream():
    x = torch.randn(4, 16, 32)
    x[:, 0, 7] = 600.0
    return x.half()


data = [stream() for _ in range(4)]
""",
        swaps=(
            (
                "        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))\n",
                "        h = x.float()\n        h = h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + self.eps)\n        return self.weight * h.to(x.dtype)\n",
            ),
        ),
    ),
    Case(
        id="FP08",
        status="rep",
        codes=("ND207",),
        how="model.half() takes the BatchNorms along",
        text="""
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),  # fault
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1, bias=False),
            nn.BatchNorm2d(32),  # fault
            nn.ReLU(),
        )
        self.fc = nn.Linear(32, 10)

    def forward(self, x):
        return self.fc(self.body(x).mean((2, 3)))


model = Net()
model.half()
inputs = torch.randn(2, 3, 16, 16).half()
""",
        swaps=(("model.half()\n", "\n"), ("16, 16).half()", "16, 16)")),
    ),
    Case(
        id="FP08b",
        status="rep",
        codes=("ND207",),
        how="BatchNorm built in bfloat16",
        text="""
model = nn.Sequential(
    nn.Linear(16, 32, bias=False, dtype=torch.bfloat16),
    nn.BatchNorm1d(32, dtype=torch.bfloat16),  # fault
    nn.ReLU(),
    nn.Linear(32, 4, dtype=torch.bfloat16),
)
inputs = torch.randn(8, 16, dtype=torch.bfloat16)
""",
        swaps=((", dtype=torch.bfloat16", ""),),
    ),
    Case(
        id="FP-x1",
        status="own",
        codes=("ND203", "ND907", "ND905"),
        how="unit length by hand in half precision with eps 1e-8",
        text="""
class Cosine(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(10, 32) * 0.1)
        self.fc = nn.Linear(16, 32)

    def forward(self, x):
        x = self.fc(x)
        x = x / (x.pow(2).sum(-1, keepdim=True) + 1e-8).sqrt()  # fault
        return x @ self.weight.t()


model = Cosine().half()
inputs = torch.randn(4, 16).half()
""",
        swaps=(
            (
                "        x = x / (x.pow(2).sum(-1, keepdim=True) + 1e-8).sqrt()\n",
                "        x = F.normalize(x.float(), dim=-1, eps=1e-6).half()\n",
            ),
        ),
    ),
]
