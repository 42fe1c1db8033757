"""Transformers and what surrounds them."""

from . import clean

CASES = [
    clean(
        "N30-vit-class-token",
        """
class Block(nn.Module):
    def __init__(self, dim=32, heads=4):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-6), nn.LayerNorm(dim, eps=1e-6)
        self.attn = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Dropout(0.1), nn.Linear(4 * dim, dim),
                                 nn.Dropout(0.1))

    def forward(self, x):
        y = self.norm1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    def __init__(self, dim=32):
        super().__init__()
        self.patch = nn.Conv2d(3, dim, 8, 8)
        self.class_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos = nn.Parameter(torch.empty(1, 17, dim).normal_(std=0.02))
        self.blocks = nn.Sequential(*[Block(dim) for _ in range(3)])
        self.ln = nn.LayerNorm(dim, eps=1e-6)
        self.head = nn.Linear(dim, 10)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(x.shape[0], -1, -1), x], 1) + self.pos
        return self.head(self.ln(self.blocks(x))[:, 0])


model = ViT()
inputs = torch.randn(2, 3, 32, 32)
""",
    ),
    clean(
        "N34-llama",
        """
class RMSNorm(nn.Module):
    def __init__(self, dim, eps=1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x):
        dtype = x.dtype
        x = x.float()
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * x.to(dtype)


class Block(nn.Module):
    def __init__(self, dim=32, heads=4):
        super().__init__()
        self.heads = heads
        self.n1, self.n2 = RMSNorm(dim), RMSNorm(dim)
        self.q, self.k = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.v, self.o = nn.Linear(dim, dim, bias=False), nn.Linear(dim, dim, bias=False)
        self.gate, self.up = nn.Linear(dim, 64, bias=False), nn.Linear(dim, 64, bias=False)
        self.down = nn.Linear(64, dim, bias=False)

    def forward(self, x):
        n, t, d = x.shape
        h = self.n1(x)
        q, k, v = (f(h).view(n, t, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.o(a.transpose(1, 2).reshape(n, t, d))
        h = self.n2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Decoder(nn.Module):
    def __init__(self, vocab=100, dim=32):
        super().__init__()
        self.embed = nn.Embedding(vocab, dim)
        self.layers = nn.ModuleList(Block(dim) for _ in range(4))
        self.norm = RMSNorm(dim)
        self.lm_head = nn.Linear(dim, vocab, bias=False)
        self.apply(self._init)

    @staticmethod
    def _init(m):
        if isinstance(m, nn.Linear | nn.Embedding):
            nn.init.normal_(m.weight, 0.0, 0.02)

    def forward(self, ids):
        x = self.embed(ids)
        for layer in self.layers:
            x = layer(x)
        return self.lm_head(self.norm(x))


model = Decoder()
inputs = torch.randint(0, 100, (2, 12))
""",
    ),
    clean(
        "N36-annotated-transformer",
        '''
class LayerNorm(nn.Module):
    """Mean and std, with eps added to std, as in a well-known teaching text."""

    def __init__(self, features, eps=1e-6):
        super().__init__()
        self.a_2, self.b_2 = nn.Parameter(torch.ones(features)), nn.Parameter(torch.zeros(features))
        self.eps = eps

    def forward(self, x):
        mean, std = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
        return self.a_2 * (x - mean) / (std + self.eps) + self.b_2


class SublayerConnection(nn.Module):
    def __init__(self, size, dropout):
        super().__init__()
        self.norm, self.dropout = LayerNorm(size), nn.Dropout(dropout)

    def forward(self, x, sublayer):
        return x + self.dropout(sublayer(self.norm(x)))


class EncoderLayer(nn.Module):
    def __init__(self, size=32):
        super().__init__()
        self.attn = nn.MultiheadAttention(size, 4, batch_first=True)
        self.ff = nn.Sequential(nn.Linear(size, 64), nn.ReLU(), nn.Dropout(0.1), nn.Linear(64, size))
        self.sublayer = nn.ModuleList([SublayerConnection(size, 0.1) for _ in range(2)])

    def forward(self, x):
        x = self.sublayer[0](x, lambda y: self.attn(y, y, y)[0])
        return self.sublayer[1](x, self.ff)


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 32)
        self.layers = nn.ModuleList(EncoderLayer() for _ in range(3))
        self.norm = LayerNorm(32)
        self.out = nn.Linear(32, 5)

    def forward(self, ids):
        x = self.embed(ids) * math.sqrt(32)
        for layer in self.layers:
            x = layer(x)
        return self.out(self.norm(x).mean(1))


model = Encoder()
inputs = torch.randint(0, 50, (2, 9))
''',
    ),
    clean(
        "N38-nn-transformer",
        """
model = nn.Transformer(d_model=32, nhead=4, num_encoder_layers=2, num_decoder_layers=2, dim_feedforward=64)
inputs = (torch.randn(7, 2, 32), torch.randn(5, 2, 32))
""",
    ),
    clean(
        "N48-bert-lora",
        """
class LoRALinear(nn.Module):
    def __init__(self, a, b, r=4):
        super().__init__()
        self.base = nn.Linear(a, b)
        self.lora_A, self.lora_B = nn.Linear(a, r, bias=False), nn.Linear(r, b, bias=False)
        nn.init.kaiming_uniform_(self.lora_A.weight, a=math.sqrt(5))
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x):
        return self.base(x) + self.lora_B(self.lora_A(x)) * 2.0


class SelfAttention(nn.Module):
    def __init__(self, d=32, h=4):
        super().__init__()
        self.h = h
        self.query, self.key, self.value = LoRALinear(d, d), nn.Linear(d, d), LoRALinear(d, d)
        self.dense = nn.Linear(d, d)
        self.dropout = nn.Dropout(0.1)

    def forward(self, x):
        n, t, d = x.shape
        q, k, v = (f(x).view(n, t, self.h, d // self.h).permute(0, 2, 1, 3)
                   for f in (self.query, self.key, self.value))
        scores = torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(d // self.h)
        probs = self.dropout(nn.functional.softmax(scores, dim=-1))
        return self.dense(torch.matmul(probs, v).permute(0, 2, 1, 3).contiguous().view(n, t, d))


class Layer(nn.Module):
    def __init__(self, d=32):
        super().__init__()
        self.attention = SelfAttention(d)
        self.ln1, self.ln2 = nn.LayerNorm(d, eps=1e-12), nn.LayerNorm(d, eps=1e-12)
        self.inter, self.out = nn.Linear(d, 64), nn.Linear(64, d)
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        x = self.ln1(self.drop(self.attention(x)) + x)
        return self.ln2(self.drop(self.out(F.gelu(self.inter(x)))) + x)


class Bert(nn.Module):
    def __init__(self):
        super().__init__()
        self.word, self.pos = nn.Embedding(100, 32, padding_idx=0), nn.Embedding(64, 32)
        self.ln = nn.LayerNorm(32, eps=1e-12)
        self.layers = nn.ModuleList(Layer() for _ in range(2))
        self.pooler = nn.Linear(32, 32)
        self.classifier = nn.Linear(32, 2)

    def forward(self, ids):
        x = self.ln(self.word(ids) + self.pos(torch.arange(ids.shape[1])))
        for layer in self.layers:
            x = layer(x)
        return self.classifier(torch.tanh(self.pooler(x[:, 0])))


model = Bert()
inputs = torch.randint(0, 100, (2, 10))
""",
    ),
    clean(
        "adaln-zero-dit",
        """
class DiTBlock(nn.Module):
    def __init__(self, d=32):
        super().__init__()
        self.norm1 = nn.LayerNorm(d, elementwise_affine=False, eps=1e-6)
        self.norm2 = nn.LayerNorm(d, elementwise_affine=False, eps=1e-6)
        self.attn = nn.MultiheadAttention(d, 4, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(d, 64), nn.GELU(approximate="tanh"), nn.Linear(64, d))
        self.ada = nn.Sequential(nn.SiLU(), nn.Linear(d, 6 * d))
        nn.init.zeros_(self.ada[1].weight)
        nn.init.zeros_(self.ada[1].bias)

    def forward(self, x, c):
        s1, g1, a1, s2, g2, a2 = self.ada(c).unsqueeze(1).chunk(6, dim=-1)
        h = self.norm1(x) * (1 + g1) + s1
        x = x + a1 * self.attn(h, h, h)[0]
        return x + a2 * self.mlp(self.norm2(x) * (1 + g2) + s2)


class DiT(nn.Module):
    def __init__(self, d=32):
        super().__init__()
        self.patch, self.time = nn.Conv2d(3, d, 4, 4), nn.Sequential(nn.Linear(1, d), nn.SiLU(), nn.Linear(d, d))
        self.blocks = nn.ModuleList(DiTBlock(d) for _ in range(2))
        self.norm = nn.LayerNorm(d, elementwise_affine=False, eps=1e-6)
        self.out = nn.Linear(d, 48)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x, t):
        c = self.time(t)
        x = self.patch(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x, c)
        return self.out(self.norm(x))


model = DiT()
inputs = (torch.randn(2, 3, 16, 16), torch.rand(2, 1))
""",
    ),
    clean(
        "controlnet-zero-conv",
        """
def zero_module(m):
    for p in m.parameters():
        nn.init.zeros_(p)
    return m


class ControlNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.hint = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.SiLU(), zero_module(nn.Conv2d(16, 16, 3, padding=1)))
        self.inp = nn.Conv2d(4, 16, 3, padding=1)
        self.block = nn.Sequential(nn.GroupNorm(4, 16), nn.SiLU(), nn.Conv2d(16, 16, 3, padding=1))
        self.zero = zero_module(nn.Conv2d(16, 16, 1))

    def forward(self, x, hint):
        h = self.inp(x) + self.hint(hint)
        return self.zero(h + self.block(h))


model = ControlNet()
inputs = (torch.randn(2, 4, 8, 8), torch.randn(2, 3, 8, 8))
""",
    ),
    clean(
        "mixture-of-experts",
        """
class MoE(nn.Module):
    def __init__(self, d=16, experts=4):
        super().__init__()
        self.router = nn.Linear(d, experts)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(d, 32), nn.GELU(), nn.Linear(32, d)) for _ in range(experts))

    def forward(self, x):
        weights = F.softmax(self.router(x), dim=-1)
        outs = torch.stack([expert(x) for expert in self.experts], dim=-2)
        return (weights.unsqueeze(-1) * outs).sum(-2)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inp, self.norm, self.moe, self.out = nn.Linear(8, 16), nn.LayerNorm(16), MoE(), nn.Linear(16, 4)

    def forward(self, x):
        x = self.inp(x)
        return self.out(F.layer_norm(x + self.moe(self.norm(x)), (16,)))


model = Net()
inputs = torch.randn(8, 8)
""",
    ),
    clean(
        "clip-towers",
        """
class CLIP(nn.Module):
    def __init__(self):
        super().__init__()
        self.image = nn.Sequential(nn.Conv2d(3, 16, 4, 4), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.text = nn.EmbeddingBag(50, 16)
        self.image_proj = nn.Parameter(torch.randn(16, 8) * 16 ** -0.5)
        self.text_proj = nn.Parameter(torch.randn(16, 8) * 16 ** -0.5)
        self.logit_scale = nn.Parameter(torch.ones([]) * math.log(1 / 0.07))

    def forward(self, image, ids):
        a = F.normalize(self.image(image) @ self.image_proj, dim=-1)
        b = self.text(ids) @ self.text_proj
        b = b / b.norm(dim=-1, keepdim=True)
        return self.logit_scale.exp() * a @ b.t()


model = CLIP()
inputs = (torch.randn(4, 3, 16, 16), torch.randint(0, 50, (4, 6)))
""",
    ),
    clean(
        "attention-pooling-and-cosine-attention",
        """
class CosineAttention(nn.Module):
    def __init__(self, d=32, h=4):
        super().__init__()
        self.h = h
        self.qkv, self.proj = nn.Linear(d, 3 * d), nn.Linear(d, d)
        self.temperature = nn.Parameter(torch.ones(h, 1, 1))

    def forward(self, x):
        n, t, d = x.shape
        q, k, v = self.qkv(x).reshape(n, t, 3, self.h, d // self.h).permute(2, 0, 3, 4, 1)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
        attn = ((q @ k.transpose(-2, -1)) * self.temperature).softmax(dim=-1)
        return self.proj((attn @ v).permute(0, 3, 1, 2).reshape(n, t, d))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Linear(12, 32)
        self.norm, self.attn = nn.LayerNorm(32), CosineAttention()
        self.score, self.final, self.head = nn.Linear(32, 1), nn.LayerNorm(32), nn.Linear(32, 5)

    def forward(self, x):
        x = self.embed(x)
        x = x + self.attn(self.norm(x))
        weight = torch.softmax(self.score(x), dim=1)
        return self.head(self.final((weight * x).sum(dim=1)))


model = Net()
inputs = torch.randn(2, 7, 12)
""",
    ),
    clean(
        "swin-window",
        """
def windows(x, w):
    n, h, wd, c = x.shape
    x = x.view(n, h // w, w, wd // w, w, c)
    return x.permute(0, 1, 3, 2, 4, 5).contiguous().view(-1, w * w, c)


class SwinBlock(nn.Module):
    def __init__(self, c=16, w=4):
        super().__init__()
        self.w = w
        self.norm1, self.norm2 = nn.LayerNorm(c), nn.LayerNorm(c)
        self.attn = nn.MultiheadAttention(c, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(c, 32), nn.GELU(), nn.Linear(32, c))

    def forward(self, x):
        n, h, wd, c = x.shape
        y = windows(torch.roll(self.norm1(x), (-2, -2), (1, 2)), self.w)
        y = self.attn(y, y, y)[0]
        y = y.view(n, h // self.w, wd // self.w, self.w, self.w, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, wd, c)
        x = x + torch.roll(y, (2, 2), (1, 2))
        return x + self.mlp(self.norm2(x))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 16, 2, 2)
        self.pn, self.blocks = nn.LayerNorm(16), nn.Sequential(SwinBlock(), SwinBlock())
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 10)

    def forward(self, x):
        x = self.blocks(self.pn(self.patch(x).permute(0, 2, 3, 1)))
        return self.head(self.norm(x).mean((1, 2)))


model = Net()
inputs = torch.randn(2, 3, 16, 16)
""",
    ),
    clean(
        "parallel-block-gptj",
        """
class Block(nn.Module):
    def __init__(self, d=32):
        super().__init__()
        self.ln = nn.LayerNorm(d)
        self.attn = nn.MultiheadAttention(d, 4, batch_first=True)
        self.fc_in, self.fc_out = nn.Linear(d, 64), nn.Linear(64, d)

    def forward(self, x):
        h = self.ln(x)
        return self.attn(h, h, h)[0] + self.fc_out(F.gelu(self.fc_in(h))) + x


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte = nn.Embedding(60, 32)
        self.h = nn.ModuleList(Block() for _ in range(3))
        self.ln_f, self.head = nn.LayerNorm(32), nn.Linear(32, 60)

    def forward(self, ids):
        x = self.wte(ids)
        for block in self.h:
            x = block(x)
        return self.head(self.ln_f(x))


model = Net()
inputs = torch.randint(0, 60, (2, 8))
""",
    ),
]
