"""Recurrent, generative and scientific models."""

from . import clean

CASES = [
    clean(
        "gru-by-hand-and-highway",
        """
class GRUCell(nn.Module):
    def __init__(self, a, h):
        super().__init__()
        self.xz, self.hz = nn.Linear(a, 3 * h), nn.Linear(h, 3 * h)

    def forward(self, x, h):
        xr, xz, xn = self.xz(x).chunk(3, 1)
        hr, hz, hn = self.hz(h).chunk(3, 1)
        r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
        return (1 - z) * torch.tanh(xn + r * hn) + z * h


class Highway(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.plain, self.gate = nn.Linear(d, d), nn.Linear(d, d)
        nn.init.constant_(self.gate.bias, -2.0)

    def forward(self, x):
        g = torch.sigmoid(self.gate(x))
        return g * F.relu(self.plain(x)) + (1 - g) * x


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.cell, self.highway, self.out = GRUCell(8, 16), Highway(16), nn.Linear(16, 4)

    def forward(self, x):
        h = x.new_zeros(x.shape[0], 16)
        for t in range(x.shape[1]):
            h = self.cell(x[:, t], h)
        return self.out(self.highway(h))


model = Net()
inputs = torch.randn(3, 10, 8)
""",
    ),
    clean(
        "wavenet-gates",
        """
class Residual(nn.Module):
    def __init__(self, c, dilation):
        super().__init__()
        self.conv = nn.Conv1d(c, 2 * c, 2, dilation=dilation)
        self.skip, self.res = nn.Conv1d(c, c, 1), nn.Conv1d(c, c, 1)
        self.dilation = dilation

    def forward(self, x):
        a, b = self.conv(F.pad(x, (self.dilation, 0))).chunk(2, 1)
        y = torch.tanh(a) * torch.sigmoid(b)
        return x + self.res(y), self.skip(y)


class WaveNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.inp = nn.Conv1d(1, 16, 1)
        self.layers = nn.ModuleList(Residual(16, 2**i) for i in range(4))
        self.end1, self.end2 = nn.Conv1d(16, 16, 1), nn.Conv1d(16, 32, 1)

    def forward(self, x):
        x, total = self.inp(x), 0
        for layer in self.layers:
            x, s = layer(x)
            total = total + s
        return self.end2(F.relu(self.end1(F.relu(total))))


model = WaveNet()
inputs = torch.randn(2, 1, 40)
""",
    ),
    clean(
        "siren",
        """
class Sine(nn.Module):
    def __init__(self, a, b, first=False, w0=30.0):
        super().__init__()
        self.w0, self.linear = w0, nn.Linear(a, b)
        bound = 1 / a if first else math.sqrt(6 / a) / w0
        nn.init.uniform_(self.linear.weight, -bound, bound)

    def forward(self, x):
        return torch.sin(self.w0 * self.linear(x))


model = nn.Sequential(Sine(2, 64, first=True), Sine(64, 64), Sine(64, 64), nn.Linear(64, 3))
inputs = torch.rand(16, 2) * 2 - 1
""",
    ),
    clean(
        "pinn-tanh",
        """
class PINN(nn.Module):
    def __init__(self, width=32, depth=4):
        super().__init__()
        sizes = [2] + [width] * depth + [1]
        self.linears = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:]))
        for linear in self.linears:
            nn.init.xavier_normal_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x):
        for linear in self.linears[:-1]:
            x = torch.tanh(linear(x))
        return self.linears[-1](x)


model = PINN()
inputs = torch.rand(64, 2)
""",
    ),
    clean(
        "realnvp",
        """
class Coupling(nn.Module):
    def __init__(self, d=6, flip=False):
        super().__init__()
        self.flip = flip
        self.net = nn.Sequential(nn.Linear(d // 2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, d))
        nn.init.zeros_(self.net[-1].weight)
        nn.init.zeros_(self.net[-1].bias)

    def forward(self, x):
        a, b = x.chunk(2, 1)
        if self.flip:
            a, b = b, a
        s, t = self.net(a).chunk(2, 1)
        b = b * torch.exp(torch.tanh(s)) + t
        return torch.cat([b, a] if self.flip else [a, b], 1), torch.tanh(s).sum(1)


class Flow(nn.Module):
    def __init__(self):
        super().__init__()
        self.steps = nn.ModuleList(Coupling(flip=bool(i % 2)) for i in range(4))

    def forward(self, x):
        logdet = 0
        for step in self.steps:
            x, one = step(x)
            logdet = logdet + one
        return x, logdet


model = Flow()
inputs = torch.randn(8, 6)
""",
    ),
    clean(
        "stylegan-parts",
        """
class PixelNorm(nn.Module):
    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(dim=1, keepdim=True) + 1e-8)


class EqualLinear(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(b, a)), nn.Parameter(torch.zeros(b))
        self.scale = 1 / math.sqrt(a)

    def forward(self, x):
        return F.linear(x, self.weight * self.scale, self.bias)


class ModulatedConv(nn.Module):
    def __init__(self, a, b, z):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, b, a, 3, 3))
        self.scale, self.modulation = 1 / math.sqrt(a * 9), EqualLinear(z, a)
        self.modulation.bias.data.fill_(1.0)

    def forward(self, x, style):
        n, c, h, w = x.shape
        weight = self.scale * self.weight * self.modulation(style).view(n, 1, c, 1, 1)
        weight = weight * torch.rsqrt(weight.pow(2).sum([2, 3, 4], keepdim=True) + 1e-8)
        out = F.conv2d(x.reshape(1, n * c, h, w), weight.flatten(0, 1), padding=1, groups=n)
        return out.view(n, -1, h, w)


class Generator(nn.Module):
    def __init__(self, z=16):
        super().__init__()
        self.mapping = nn.Sequential(PixelNorm(), EqualLinear(z, z), nn.LeakyReLU(0.2), EqualLinear(z, z), nn.LeakyReLU(0.2))
        self.const = nn.Parameter(torch.randn(1, 16, 4, 4))
        self.conv, self.rgb = ModulatedConv(16, 16, z), nn.Conv2d(16, 3, 1)

    def forward(self, z):
        s = self.mapping(z)
        x = F.leaky_relu(self.conv(self.const.expand(z.shape[0], -1, -1, -1), s), 0.2)
        return self.rgb(x)


model = Generator()
inputs = torch.randn(4, 16)
""",
    ),
    clean(
        "weight-standardization-groupnorm",
        """
class WSConv2d(nn.Conv2d):
    def forward(self, x):
        w = self.weight
        w = w - w.mean(dim=(1, 2, 3), keepdim=True)
        w = w / (w.std(dim=(1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(x, w, self.bias, self.stride, self.padding)


model = nn.Sequential(WSConv2d(3, 16, 3), nn.GroupNorm(4, 16), nn.ReLU(), WSConv2d(16, 32, 3), nn.GroupNorm(8, 32),
                      nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
inputs = torch.randn(2, 3, 16, 16)
""",
    ),
    clean(
        "spectral-norm-critic",
        """
from torch.nn.utils.parametrizations import spectral_norm

model = nn.Sequential(spectral_norm(nn.Conv2d(3, 16, 4, 2, 1)), nn.LeakyReLU(0.1), spectral_norm(nn.Conv2d(16, 32, 4, 2, 1)),
                      nn.LeakyReLU(0.1), nn.Flatten(), spectral_norm(nn.Linear(32 * 16, 1)))
inputs = torch.randn(2, 3, 16, 16)
""",
    ),
    clean(
        "gumbel-vqvae",
        """
class VQ(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(nn.Conv2d(3, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1))
        self.codebook = nn.Embedding(32, 8)
        self.dec = nn.Sequential(nn.ConvTranspose2d(8, 16, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(16, 3, 4, 2, 1))

    def forward(self, x):
        logits = self.enc(x)
        one_hot = F.gumbel_softmax(logits, tau=0.9, dim=1, hard=False)
        sampled = torch.einsum("bnhw,nd->bdhw", one_hot, self.codebook.weight)
        return self.dec(sampled)


model = VQ()
inputs = torch.randn(2, 3, 16, 16)
""",
    ),
    clean(
        "netvlad-softmax-assignment",
        """
class NetVLAD(nn.Module):
    def __init__(self, k=8, d=16):
        super().__init__()
        self.conv = nn.Conv2d(d, k, 1, bias=False)
        self.centroids = nn.Parameter(torch.rand(k, d) - 0.5)

    def forward(self, x):
        n, c = x.shape[:2]
        x = F.normalize(x, p=2, dim=1)
        soft = F.softmax(self.conv(x).view(n, -1, x.shape[2] * x.shape[3]), dim=1)
        flat = x.view(n, c, -1)
        residual = flat.unsqueeze(1) - self.centroids[None, :, :, None]
        vlad = F.normalize((residual * soft.unsqueeze(2)).sum(-1), p=2, dim=2)
        return F.normalize(vlad.view(n, -1), p=2, dim=1)


model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), NetVLAD())
inputs = torch.randn(2, 3, 16, 16)
""",
    ),
    clean(
        "film-and-pointnet",
        """
class PointNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.mlp = nn.Sequential(nn.Conv1d(3, 32, 1, bias=False), nn.BatchNorm1d(32), nn.ReLU(),
                                 nn.Conv1d(32, 64, 1, bias=False), nn.BatchNorm1d(64), nn.ReLU())
        self.cond = nn.Linear(5, 128)
        self.fc = nn.Sequential(nn.Linear(64, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 4))

    def forward(self, points, c):
        x = self.mlp(points).amax(-1)
        gamma, beta = self.cond(c).chunk(2, -1)
        return self.fc(x * (1 + gamma) + beta)


model = PointNet()
inputs = (torch.randn(4, 3, 50), torch.randn(4, 5))
""",
    ),
    clean(
        "deepsets-lstm-tagger",
        """
class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.lstm = nn.Embedding(40, 16), nn.LSTM(16, 12, bidirectional=True, batch_first=True)
        self.norm, self.out = nn.LayerNorm(24), nn.Linear(24, 6)

    def forward(self, ids):
        h, _ = self.lstm(self.embed(ids))
        return self.out(self.norm(h))


def step(model, ids, y):
    return F.cross_entropy(model(ids).transpose(1, 2), y)


model = Tagger()
inputs = torch.randint(0, 40, (3, 9))
""",
    ),
    clean(
        "orthogonal-rnn-ppo",
        """
def layer_init(layer, std=math.sqrt(2), bias=0.0):
    nn.init.orthogonal_(layer.weight, std)
    nn.init.constant_(layer.bias, bias)
    return layer


class Agent(nn.Module):
    def __init__(self):
        super().__init__()
        self.critic = nn.Sequential(layer_init(nn.Linear(8, 64)), nn.Tanh(), layer_init(nn.Linear(64, 64)), nn.Tanh(),
                                    layer_init(nn.Linear(64, 1), std=1.0))
        self.actor = nn.Sequential(layer_init(nn.Linear(8, 64)), nn.Tanh(), layer_init(nn.Linear(64, 64)), nn.Tanh(),
                                   layer_init(nn.Linear(64, 3), std=0.01))
        self.log_std = nn.Parameter(torch.zeros(1, 3))

    def forward(self, x):
        return self.actor(x), self.critic(x), self.log_std.expand(x.shape[0], -1)


model = Agent()
inputs = torch.randn(4, 8)
""",
    ),
    clean(
        "caches-and-counters",
        """
class Rotary(nn.Module):
    def __init__(self, dim=8):
        super().__init__()
        self.register_buffer("inv_freq", 1.0 / (10000 ** (torch.arange(0, dim, 2).float() / dim)))
        self.cached, self.length = None, 0

    def forward(self, x):
        if self.length != x.shape[1]:
            self.length = x.shape[1]
            freqs = torch.outer(torch.arange(self.length).float(), self.inv_freq)
            self.cached = torch.cat([freqs, freqs], -1)
        return x * self.cached.cos() + torch.cat([-x[..., 4:], x[..., :4]], -1) * self.cached.sin()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inp, self.rot, self.out = nn.Linear(5, 8), Rotary(), nn.Linear(8, 2)

    def forward(self, x):
        return self.out(F.silu(self.rot(self.inp(x))))


model = Net()
inputs = torch.randn(2, 6, 5)
""",
    ),
    clean(
        "ema-codebook-buffers",
        """
class EMAQuantizer(nn.Module):
    def __init__(self, n=16, d=8, decay=0.99):
        super().__init__()
        self.decay = decay
        embed = torch.randn(n, d)
        self.register_buffer("embed", embed)
        self.register_buffer("cluster_size", torch.zeros(n))
        self.register_buffer("embed_avg", embed.clone())

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        idx = torch.cdist(flat, self.embed).argmin(-1)
        one_hot = F.one_hot(idx, self.embed.shape[0]).type(flat.dtype)
        if self.training:
            self.cluster_size.mul_(self.decay).add_(one_hot.sum(0), alpha=1 - self.decay)
            self.embed_avg.mul_(self.decay).add_(one_hot.t() @ flat, alpha=1 - self.decay)
        q = F.embedding(idx, self.embed).view_as(x)
        return x + (q - x).detach()


model = nn.Sequential(nn.Linear(6, 8), EMAQuantizer(), nn.Linear(8, 6))
inputs = torch.randn(10, 6)
""",
    ),
    clean(
        "conv3d-nnunet",
        """
def block(a, b):
    return nn.Sequential(nn.Conv3d(a, b, 3, padding=1), nn.InstanceNorm3d(b, affine=True), nn.LeakyReLU(0.01, inplace=True))


model = nn.Sequential(block(1, 8), nn.MaxPool3d(2), block(8, 16), nn.ConvTranspose3d(16, 8, 2, 2), block(8, 8), nn.Conv3d(8, 3, 1))
inputs = torch.randn(1, 1, 8, 16, 16)
""",
    ),
]
