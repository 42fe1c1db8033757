"""SX: a softmax over the wrong axis, or at the wrong place of attention."""

from __future__ import annotations

from corpus import Case

CASES = [
    Case(
        id="SX02",
        status="rep",
        mode="D",
        codes=("ND307",),
        how="attention weights of shape (B, T, 1), softmax over the last axis",
        text="""
class RelationNet(nn.Module):
    def __init__(self, vocab=200, dim=32, hidden=24):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.lstm = nn.LSTM(dim, hidden, batch_first=True, bidirectional=True)
        self.attention = nn.Sequential(nn.Linear(dim + 2 * hidden, hidden), nn.Tanh(), nn.Linear(hidden, 1))
        self.out = nn.Linear(2 * hidden, 50)

    def forward(self, text):
        x = self.embed(text)
        outputs, _ = self.lstm(x)
        weights = self.attention(torch.cat([x, outputs], dim=-1))
        alpha = F.softmax(weights, dim=-1)  # fault
        return self.out((alpha * outputs).sum(dim=1))


model = RelationNet()
inputs = torch.randint(0, 200, (4, 11))
""",
        swaps=(("F.softmax(weights, dim=-1)", "F.softmax(weights, dim=1)"),),
    ),
    Case(
        id="SX04",
        status="rep",
        mode="DR",
        codes=("ND308",),
        how="attention over memory slots, softmax on axis 0, which is the batch",
        text="""
class Attention(nn.Module):
    def __init__(self, dim=32):
        super().__init__()
        self.linear_in = nn.Linear(dim, dim, bias=False)
        self.linear_out = nn.Linear(2 * dim, dim, bias=False)

    def forward(self, query, context):
        b, n, d = query.size()
        query = self.linear_in(query.reshape(b * n, d)).reshape(b, n, d)
        scores = torch.bmm(query, context.transpose(1, 2).contiguous()) / d**0.5
        weights = torch.softmax(scores, dim=0)  # fault
        mix = torch.bmm(weights, context)
        return torch.tanh(self.linear_out(torch.cat((mix, query), dim=2)))


model = Attention()
inputs = (torch.randn(3, 1, 32), torch.randn(3, 7, 32))
""",
        swaps=(("torch.softmax(scores, dim=0)", "torch.softmax(scores, dim=-1)"),),
    ),
    Case(
        id="SX04b",
        status="rep",
        codes=("ND308",),
        how="the same as a layer nn.Softmax(dim=0) in a sentence classifier",
        text="""
class SelfAttentive(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(100, 24)
        self.score = nn.Linear(24, 1)
        self.softmax = nn.Softmax(dim=0)  # fault
        self.out = nn.Linear(24, 2)

    def forward(self, ids):
        h = self.emb(ids)
        a = self.softmax(torch.tanh(self.score(h)).squeeze(-1))  # fault
        return self.out(torch.einsum("bt,btd->bd", a, h))


model = SelfAttentive()
inputs = torch.randint(0, 100, (5, 9))
""",
        swaps=(("nn.Softmax(dim=0)", "nn.Softmax(dim=1)"),),
    ),
    Case(
        id="SX06",
        status="rep",
        mode="D",
        codes=("ND308", "ND309"),
        how="selective kernel block: weights of branches stacked in front, softmax over axis 1",
        text="""
class SKAttention(nn.Module):
    def __init__(self, channel=32, kernels=(1, 3, 5), reduction=4):
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(channel, channel, k, padding=k // 2, bias=False), nn.BatchNorm2d(channel), nn.ReLU()
            )
            for k in kernels
        )
        self.fc = nn.Linear(channel, channel // reduction)
        self.fcs = nn.ModuleList(nn.Linear(channel // reduction, channel) for _ in kernels)
        self.softmax = nn.Softmax(dim=1)  # fault

    def forward(self, x):
        b, c, _, _ = x.size()
        feats = torch.stack([conv(x) for conv in self.convs], 0)
        s = feats.sum(0).mean(-1).mean(-1)
        z = torch.relu(self.fc(s))
        weights = torch.stack([fc(z).view(b, c, 1, 1) for fc in self.fcs], 0)
        weights = self.softmax(weights)  # fault
        return (weights * feats).sum(0)


model = SKAttention()
inputs = torch.randn(2, 32, 8, 8)
""",
        swaps=(("nn.Softmax(dim=1)", "nn.Softmax(dim=0)"),),
    ),
    Case(
        id="SX08",
        status="thin",
        codes=("ND306",),
        how="attention pooling with a softmax that leaves its axis to torch",
        text="""
class AttentionPool(nn.Module):
    def __init__(self, dim=32):
        super().__init__()
        self.proj = nn.Linear(dim, dim)
        self.vector = nn.Linear(dim, 1, bias=False)

    def forward(self, x, mask):
        score = self.vector(torch.tanh(self.proj(x))).squeeze(-1)
        score = score.masked_fill(mask, -1e9)
        weight = F.softmax(score)  # fault
        return torch.bmm(weight.unsqueeze(1), x).squeeze(1)


model = AttentionPool()
inputs = (torch.randn(3, 6, 32), torch.zeros(3, 6, dtype=torch.bool))
""",
        swaps=(("F.softmax(score)", "F.softmax(score, dim=-1)"),),
    ),
    Case(
        id="SX08b",
        status="thin",
        codes=("ND306",),
        how="nn.Softmax() without an axis",
        text="""
model = nn.Sequential(
    nn.Linear(16, 32),
    nn.Tanh(),
    nn.Linear(32, 4),
    nn.Softmax(),  # fault
)
inputs = torch.randn(5, 16)
""",
        swaps=(("nn.Softmax()", "nn.Softmax(dim=-1)"),),
    ),
    Case(
        id="SX12",
        status="rep",
        codes=("ND119",),
        how="ViT attention: the weights are scaled behind the softmax",
        text="""
class MultiHeadAttention(nn.Module):
    def __init__(self, emb=64, heads=4, dropout=0.0):
        super().__init__()
        self.heads, self.scaling = heads, (emb // heads) ** -0.5
        self.qkv = nn.Linear(emb, 3 * emb)
        self.drop = nn.Dropout(dropout)
        self.projection = nn.Linear(emb, emb)

    def forward(self, x):
        b, n, e = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.heads, e // self.heads).permute(2, 0, 3, 1, 4)
        q, k, v = qkv[0], qkv[1], qkv[2]
        energy = torch.einsum("bhqd, bhkd -> bhqk", q, k)
        att = F.softmax(energy, dim=-1) * self.scaling  # fault
        out = torch.einsum("bhal, bhlv -> bhav", self.drop(att), v)
        return self.projection(out.transpose(1, 2).reshape(b, n, e))


class Block(nn.Module):
    def __init__(self, emb=64):
        super().__init__()
        self.norm1, self.att = nn.LayerNorm(emb), MultiHeadAttention(emb)
        self.norm2, self.mlp = nn.LayerNorm(emb), nn.Sequential(nn.Linear(emb, 128), nn.GELU(), nn.Linear(128, emb))

    def forward(self, x):
        x = x + self.att(self.norm1(x))
        return x + self.mlp(self.norm2(x))


model = Block()
inputs = torch.randn(2, 10, 64)
""",
        swaps=(("F.softmax(energy, dim=-1) * self.scaling", "F.softmax(energy * self.scaling, dim=-1)"),),
    ),
    Case(
        id="SX12b",
        status="rep",
        codes=("ND119",),
        how="divided by the root of the width behind the softmax, in matmul style",
        text="""
class SelfAttention(nn.Module):
    def __init__(self, dim=32):
        super().__init__()
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.dim = dim

    def forward(self, x):
        q, k, v = self.query(x), self.key(x), self.value(x)
        scores = q @ k.transpose(-2, -1)
        weights = scores.softmax(dim=-1) / self.dim**0.5  # fault
        return weights @ v


model = SelfAttention()
inputs = torch.randn(2, 10, 32)
""",
        swaps=(("scores.softmax(dim=-1) / self.dim**0.5", "(scores / self.dim**0.5).softmax(dim=-1)"),),
    ),
    Case(
        id="SX-x1",
        status="own",
        codes=("ND307",),
        how="binary classifier with one output unit and a Softmax behind it",
        text="""
class Churn(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(18, 40)
        self.out = nn.Linear(40, 1)

    def forward(self, x):
        return torch.softmax(self.out(F.relu(self.hidden(x))), dim=1)  # fault


model = Churn()
inputs = torch.randn(6, 18)
""",
        swaps=(
            (
                "torch.softmax(self.out(F.relu(self.hidden(x))), dim=1)",
                "torch.sigmoid(self.out(F.relu(self.hidden(x))))",
            ),
        ),
    ),
]
