"""TR: norms at the wrong place of a transformer block."""

from __future__ import annotations

from corpus import Case

CASES = [
    Case(
        id="TR02",
        status="ack",
        codes=("ND107",),
        how="pre-norm block whose skip starts from the normalized tensor",
        text="""
class TransformerLayer(nn.Module):
    def __init__(self, hidden=32, heads=4, pre_norm=True):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(hidden), nn.LayerNorm(hidden)  # fault
        self.attention = nn.MultiheadAttention(hidden, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(hidden, 64), nn.GELU(), nn.Linear(64, hidden))

    def forward(self, state):
        x = self.norm1(state)  # fault
        attn, _ = self.attention(x, x, x, need_weights=False)
        x = x + attn  # fault
        y = self.norm2(x)  # fault
        return y + self.mlp(y)  # fault


class Dtqn(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Linear(6, 32)
        self.layers = nn.ModuleList([TransformerLayer() for _ in range(2)])
        self.out = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 3))

    def forward(self, obs):
        x = self.emb(obs)
        for layer in self.layers:
            x = layer(x)
        return self.out(x)


model = Dtqn()
inputs = torch.randn(2, 7, 6)
""",
        swaps=(("x = x + attn", "x = state + attn"), ("return y + self.mlp(y)", "return x + self.mlp(y)")),
    ),
    Case(
        id="TR02b",
        status="ack",
        codes=("ND107",),
        how="the same in the feed-forward half only, functional layer_norm",
        text="""
class Block(nn.Module):
    def __init__(self, d=48):
        super().__init__()
        self.d = d
        self.mix = nn.Linear(d, d)
        self.up, self.down = nn.Linear(d, 2 * d), nn.Linear(2 * d, d)

    def ff(self, x):
        return self.down(F.silu(self.up(x)))

    def forward(self, x):
        x = x + torch.tanh(self.mix(F.layer_norm(x, (self.d,))))
        h = F.layer_norm(x, (self.d,))  # fault
        return h + self.ff(h)  # fault


model = nn.Sequential(nn.Linear(8, 48), Block(), Block(), nn.LayerNorm(48), nn.Linear(48, 2))
inputs = torch.randn(2, 5, 8)
""",
        swaps=(("return h + self.ff(h)", "return x + self.ff(h)"),),
    ),
    Case(
        id="TR04",
        status="ack",
        codes=("ND107",),
        how="src = norm(src); src = src + mlp(src)",
        text="""
class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads, self.scale = heads, (dim // heads) ** -0.5
        self.qkv = nn.Linear(dim, dim * 3, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        attn = ((q @ k.transpose(-2, -1)) * self.scale).softmax(dim=-1)
        return self.proj((attn @ v).transpose(1, 2).reshape(b, n, c))


class EncoderLayer(nn.Module):
    def __init__(self, d_model=64, nhead=4, ff=128, dropout=0.1):
        super().__init__()
        self.pre_norm = nn.LayerNorm(d_model)
        self.self_attn = Attention(d_model, nhead)
        self.linear1 = nn.Linear(d_model, ff)
        self.dropout1 = nn.Dropout(dropout)
        self.norm1 = nn.LayerNorm(d_model)  # fault
        self.linear2 = nn.Linear(ff, d_model)
        self.dropout2 = nn.Dropout(dropout)

    def forward(self, src):
        src = src + self.self_attn(self.pre_norm(src))
        src = self.norm1(src)  # fault
        src2 = self.linear2(self.dropout1(F.gelu(self.linear1(src))))
        src = src + self.dropout2(src2)  # fault
        return src


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([EncoderLayer() for _ in range(2)])
        self.norm = nn.LayerNorm(64)
        self.pool = nn.Linear(64, 1)
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        for blk in self.blocks:
            x = blk(x)
        x = self.norm(x)
        w = F.softmax(self.pool(x), dim=1)
        return self.fc(torch.matmul(w.transpose(-1, -2), x).squeeze(-2))


model = Classifier()
inputs = torch.randn(2, 16, 64)
""",
        swaps=(
            ("        src = self.norm1(src)\n", "        out = self.norm1(src)\n"),
            ("F.gelu(self.linear1(src))", "F.gelu(self.linear1(out))"),
        ),
    ),
    Case(
        id="TR06",
        status="fix",
        mode="SR",
        codes=("ND110", "ND109"),
        how="decoder layer: ln1 in front of both halves, ln2 in front of the third, ln3 never",
        text="""
class DecoderLayer(nn.Module):
    def __init__(self, dims=32, heads=4):
        super().__init__()
        self.self_attention = nn.MultiheadAttention(dims, heads, batch_first=True)
        self.cross_attention = nn.MultiheadAttention(dims, heads, batch_first=True)
        self.ln1 = nn.LayerNorm(dims)  # fault
        self.ln2 = nn.LayerNorm(dims)  # fault
        self.ln3 = nn.LayerNorm(dims)
        self.linear1 = nn.Linear(dims, 4 * dims)
        self.linear2 = nn.Linear(4 * dims, dims)

    def forward(self, x, memory):
        y = self.ln1(x)  # fault
        x = x + self.self_attention(y, y, y, need_weights=False)[0]
        y = self.ln1(x)  # fault
        x = x + self.cross_attention(y, memory, memory, need_weights=False)[0]
        y = self.ln3(x)
        return x + self.linear2(F.relu(self.linear1(y)))


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([DecoderLayer() for _ in range(2)])
        self.ln = nn.LayerNorm(32)

    def forward(self, x, memory):
        for layer in self.layers:
            x = layer(x, memory)
        return self.ln(x)


model = Decoder()
inputs = (torch.randn(2, 5, 32), torch.randn(2, 7, 32))
""",
        swaps=(
            (
                "        y = self.ln1(x)\n        x = x + self.cross",
                "        y = self.ln2(x)\n        x = x + self.cross",
            ),
        ),
    ),
    Case(
        id="TR06b",
        status="fix",
        codes=("ND110", "ND109"),
        how="the same with RMS norms of one's own",
        text="""
class RMSNorm(nn.Module):
    def __init__(self, dim, eps=1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x):
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps))


class Layer(nn.Module):
    def __init__(self, dim=32):
        super().__init__()
        self.input_layernorm = RMSNorm(dim)  # fault
        self.post_attention_layernorm = RMSNorm(dim)  # fault
        self.mix = nn.MultiheadAttention(dim, 4, batch_first=True, bias=False)
        self.gate, self.up = nn.Linear(dim, 64, bias=False), nn.Linear(dim, 64, bias=False)
        self.down = nn.Linear(64, dim, bias=False)

    def forward(self, x):
        h = self.input_layernorm(x)  # fault
        x = x + self.mix(h, h, h)[0]
        h = self.input_layernorm(x)  # fault
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


model = nn.Sequential(Layer(), Layer(), RMSNorm(32))
inputs = torch.randn(2, 6, 32)
""",
        swaps=(
            (
                "        h = self.input_layernorm(x)\n        return",
                "        h = self.post_attention_layernorm(x)\n        return",
            ),
        ),
    ),
    Case(
        id="TR08",
        status="fix",
        codes=("ND111",),
        how="pre-norm wrapper that normalizes the first of query, key and value only",
        text="""
class Attention(nn.Module):
    def __init__(self, dim, heads=4):
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, query, key, value):
        q, k, v = (
            f(t).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for f, t in ((self.q, query), (self.k, key), (self.v, value))
        )
        out = F.scaled_dot_product_attention(q, k, v)
        return self.proj(out.transpose(1, 2).flatten(2))


class PreNorm(nn.Module):
    def __init__(self, dim, sublayer):
        super().__init__()
        self.norm = nn.LayerNorm(dim)  # fault
        self.sublayer = sublayer

    def forward(self, inputs):
        normed = [self.norm(inputs[0]), *inputs[1:]]  # fault
        return self.sublayer(*normed)  # fault


class Block(nn.Module):
    def __init__(self, dim=32):
        super().__init__()
        self.wrap = PreNorm(dim, Attention(dim))
        self.norm = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 64), nn.GELU(), nn.Linear(64, dim))

    def forward(self, x):
        x = x + self.wrap([x, x, x])
        return x + self.mlp(self.norm(x))


model = nn.Sequential(nn.Linear(8, 32), Block(), Block(), nn.LayerNorm(32), nn.Linear(32, 2))
inputs = torch.randn(2, 9, 8)
""",
        swaps=(("[self.norm(inputs[0]), *inputs[1:]]", "[self.norm(x) for x in inputs]"),),
    ),
    Case(
        id="TR08b",
        status="fix",
        codes=("ND111",),
        how="nn.MultiheadAttention(norm(x), x, x)",
        text="""
class Layer(nn.Module):
    def __init__(self, d=32):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.attn = nn.MultiheadAttention(d, 4, batch_first=True)
        self.ff = nn.Sequential(nn.Linear(d, 64), nn.ReLU(), nn.Linear(64, d))

    def forward(self, x):
        x = x + self.attn(self.norm1(x), x, x)[0]  # fault
        return x + self.ff(self.norm2(x))


model = nn.Sequential(Layer(), Layer(), nn.LayerNorm(32))
inputs = torch.randn(2, 9, 32)
""",
        swaps=(
            (
                "        x = x + self.attn(self.norm1(x), x, x)[0]\n",
                "        h = self.norm1(x)\n        x = x + self.attn(h, h, h)[0]\n",
            ),
        ),
    ),
    Case(
        id="TR10",
        status="fix",
        codes=("ND103",),
        how="post-norm conformer layers with a further norm behind the encoder",
        text="""
class ConformerLayer(nn.Module):
    def __init__(self, d, normalize_before):
        super().__init__()
        self.normalize_before = normalize_before
        self.attn = nn.MultiheadAttention(d, 4, batch_first=True)
        self.ff = nn.Sequential(nn.Linear(d, 64), nn.SiLU(), nn.Linear(64, d))
        self.norm_mha, self.norm_ff = nn.LayerNorm(d), nn.LayerNorm(d)
        if not normalize_before:
            self.norm_final = nn.LayerNorm(d)  # fault

    def forward(self, src):
        residual = src
        if self.normalize_before:
            src = self.norm_mha(src)
        src = residual + self.attn(src, src, src, need_weights=False)[0]
        if not self.normalize_before:
            src = self.norm_mha(src)
        residual = src
        if self.normalize_before:
            src = self.norm_ff(src)
        src = residual + self.ff(src)
        if not self.normalize_before:
            src = self.norm_ff(src)  # fault
            src = self.norm_final(src)  # fault
        return src


class Conformer(nn.Module):
    def __init__(self, d=32, normalize_before=False):
        super().__init__()
        self.inp = nn.Linear(16, d)
        self.layers = nn.ModuleList([ConformerLayer(d, normalize_before) for _ in range(2)])
        self.after_norm = nn.LayerNorm(d) if normalize_before else nn.Identity()
        self.out = nn.Linear(d, 20)

    def forward(self, x):
        x = self.inp(x)
        for layer in self.layers:
            x = layer(x)
        return self.out(self.after_norm(x))


model = Conformer()
inputs = torch.randn(2, 12, 16)
""",
        swaps=(
            ("            src = self.norm_final(src)\n", ""),
            ("        if not normalize_before:\n            self.norm_final = nn.LayerNorm(d)\n", ""),
        ),
    ),
    Case(
        id="TR12",
        status="PR",
        codes=("ND107",),
        how="pre-norm decoder: the residual of the feed-forward half adds what the norm gave",
        text="""
class PositionwiseFFN(nn.Module):
    def __init__(self, units=32, hidden=64, pre_norm=True):
        super().__init__()
        self.pre_norm = pre_norm
        self.ffn_1 = nn.Linear(units, hidden)
        self.ffn_2 = nn.Linear(hidden, units)
        self.layer_norm = nn.LayerNorm(units)  # fault
        self.dropout = nn.Dropout(0.1)

    def forward(self, data):
        if self.pre_norm:
            data = self.layer_norm(data)  # fault
        out = torch.relu(self.ffn_1(data))
        out = self.dropout(self.ffn_2(out))
        out = out + data  # fault
        if not self.pre_norm:
            out = self.layer_norm(out)
        return out


class DecoderLayer(nn.Module):
    def __init__(self, units=32):
        super().__init__()
        self.attn_in = nn.MultiheadAttention(units, 4, batch_first=True)
        self.ln_in = nn.LayerNorm(units)
        self.ffn = PositionwiseFFN(units)

    def forward(self, data):
        h = self.ln_in(data)
        data = data + self.attn_in(h, h, h, need_weights=False)[0]
        return self.ffn(data)


model = nn.Sequential(DecoderLayer(), DecoderLayer(), nn.LayerNorm(32), nn.Linear(32, 50))
inputs = torch.randn(2, 7, 32)
""",
        swaps=(
            (
                "        if self.pre_norm:\n            data = self.layer_norm(data)\n        out = torch.relu(self.ffn_1(data))",
                "        out = self.layer_norm(data) if self.pre_norm else data\n        out = torch.relu(self.ffn_1(out))",
            ),
        ),
    ),
    Case(
        id="TR14",
        status="rep",
        codes=("ND905",),
        how="RMS norm by hand with eps added to the root",
        text="""
class RMSLayerNorm(nn.Module):
    def __init__(self, size, eps=1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x):
        rms = x.norm(2, dim=-1, keepdim=True) * x.size(-1) ** -0.5  # fault
        x = x / (rms + self.eps)  # fault
        return self.weight * x  # fault


class Block(nn.Module):
    def __init__(self, d=32):
        super().__init__()
        self.norm = RMSLayerNorm(d)  # fault
        self.ff = nn.Sequential(nn.Linear(d, 64), nn.GELU(), nn.Linear(64, d))

    def forward(self, x):
        return x + self.ff(self.norm(x))


model = nn.Sequential(nn.Embedding(100, 32), Block(), Block(), RMSLayerNorm(32), nn.Linear(32, 100))  # fault
inputs = torch.randint(0, 100, (2, 8))
""",
        swaps=(
            (
                "        rms = x.norm(2, dim=-1, keepdim=True) * x.size(-1) ** -0.5\n        x = x / (rms + self.eps)\n",
                "        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)\n",
            ),
        ),
    ),
    Case(
        id="TR14b",
        status="rep",
        codes=("ND905",),
        how="layer norm by hand, (x - mean) / (std + eps)",
        text="""
class LayerNorm(nn.Module):
    def __init__(self, features, eps=1e-6):
        super().__init__()
        self.a_2 = nn.Parameter(torch.ones(features))
        self.b_2 = nn.Parameter(torch.zeros(features))
        self.eps = eps

    def forward(self, x):
        mean = x.mean(-1, keepdim=True)
        std = x.std(-1, keepdim=True, unbiased=False)  # fault
        return self.a_2 * (x - mean) / (std + self.eps) + self.b_2  # fault


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(10, 32), nn.Linear(32, 2)
        self.norm = LayerNorm(32)  # fault

    def forward(self, x):
        return self.fc2(F.relu(self.norm(self.fc1(x))))  # fault


model = Net()
inputs = torch.randn(4, 10)
""",
        swaps=(
            (
                "        std = x.std(-1, keepdim=True, unbiased=False)\n",
                "        var = x.var(-1, keepdim=True, unbiased=False)\n",
            ),
            ("/ (std + self.eps)", "/ torch.sqrt(var + self.eps)"),
        ),
    ),
    Case(
        id="TR-x1",
        status="own",
        codes=("ND112",),
        how="pre-norm trunk whose output goes to the head without a norm",
        text="""
class Block(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.attn = nn.MultiheadAttention(d, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(d, 4 * d), nn.GELU(), nn.Linear(4 * d, d))

    def forward(self, x):
        h = self.ln_1(x)
        x = x + self.attn(h, h, h, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))  # fault


class GPT(nn.Module):
    def __init__(self, vocab=64, d=32):
        super().__init__()
        self.wte = nn.Embedding(vocab, d)
        self.h = nn.ModuleList([Block(d) for _ in range(3)])  # fault
        self.ln_f = nn.Identity()
        self.lm_head = nn.Linear(d, vocab, bias=False)  # fault

    def forward(self, idx):
        x = self.wte(idx)
        for block in self.h:
            x = block(x)  # fault
        return self.lm_head(self.ln_f(x))  # fault


model = GPT()
inputs = torch.randint(0, 64, (2, 10))
""",
        swaps=(("nn.Identity()", "nn.LayerNorm(d)"),),
    ),
    Case(
        id="TR-x2",
        status="own",
        codes=("ND108",),
        how="a block that adds its branch to itself, x + x",
        text="""
class Residual(nn.Module):
    def __init__(self, d=32):
        super().__init__()
        self.norm = nn.LayerNorm(d)
        self.fc1, self.fc2 = nn.Linear(d, 2 * d), nn.Linear(2 * d, d)

    def forward(self, x):
        identity = x
        x = self.fc2(F.relu(self.fc1(self.norm(identity))))
        return x + x  # fault


model = nn.Sequential(nn.Linear(8, 32), Residual(), Residual(), nn.LayerNorm(32), nn.Linear(32, 2))
inputs = torch.randn(4, 8)
""",
        swaps=(("return x + x", "return x + identity"),),
    ),
]
