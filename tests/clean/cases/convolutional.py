"""Blocks of convolutional nets."""

from . import clean

CASES = [
    clean(
        "N02-linear-bottleneck",
        """
class InvertedResidual(nn.Module):
    def __init__(self, inp, out, expand=4):
        super().__init__()
        hidden = inp * expand
        self.conv = nn.Sequential(
            nn.Conv2d(inp, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6(inplace=True),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden), nn.ReLU6(inplace=True),
            nn.Conv2d(hidden, out, 1, bias=False), nn.BatchNorm2d(out),
        )
        self.use_res = inp == out

    def forward(self, x):
        return x + self.conv(x) if self.use_res else self.conv(x)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1, bias=False)
        self.bn = nn.BatchNorm2d(16)
        self.blocks = nn.Sequential(InvertedResidual(16, 24), InvertedResidual(24, 24), InvertedResidual(24, 32))
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        x = F.relu6(self.bn(self.stem(x)))
        return self.head(self.blocks(x).mean([2, 3]))


model = Net()
inputs = torch.randn(2, 3, 32, 32)
""",
    ),
    clean(
        "N04-depthwise-bn-pointwise",
        """
def channel_shuffle(x, groups):
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class ShuffleUnit(nn.Module):
    def __init__(self, c):
        super().__init__()
        half = c // 2
        self.branch = nn.Sequential(
            nn.Conv2d(half, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU(inplace=True),
            nn.Conv2d(half, half, 3, 1, 1, groups=half, bias=False), nn.BatchNorm2d(half),
            nn.Conv2d(half, half, 1, bias=False), nn.BatchNorm2d(half), nn.ReLU(inplace=True),
        )

    def forward(self, x):
        a, b = x.chunk(2, dim=1)
        return channel_shuffle(torch.cat([a, self.branch(b)], 1), 2)


model = nn.Sequential(nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True),
                      ShuffleUnit(16), ShuffleUnit(16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
inputs = torch.randn(2, 3, 16, 16)
""",
    ),
    clean(
        "N06-levit-attention",
        """
class LinearNorm(nn.Sequential):
    def __init__(self, a, b):
        super().__init__()
        self.add_module("c", nn.Linear(a, b, bias=False))
        self.add_module("bn", nn.BatchNorm1d(b))

    def forward(self, x):
        x = self.c(x)
        return self.bn(x.flatten(0, 1)).reshape_as(x)


class Attention(nn.Module):
    def __init__(self, dim=32, key=8, heads=4):
        super().__init__()
        self.heads, self.key, self.scale = heads, key, key**-0.5
        self.qkv = LinearNorm(dim, heads * key * 4)
        self.proj = nn.Sequential(nn.Hardswish(), LinearNorm(heads * key * 2, dim))

    def forward(self, x):
        n, t, _ = x.shape
        q, k, v = self.qkv(x).view(n, t, self.heads, -1).split([self.key, self.key, 2 * self.key], dim=3)
        q, k, v = q.permute(0, 2, 1, 3), k.permute(0, 2, 3, 1), v.permute(0, 2, 1, 3)
        attn = (q @ k * self.scale).softmax(dim=-1)
        return self.proj((attn @ v).transpose(1, 2).reshape(n, t, -1))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, 32, 8, 8)
        self.blocks = nn.ModuleList(Attention() for _ in range(3))
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x.mean(1))


model = Net()
inputs = torch.randn(2, 3, 32, 32)
""",
    ),
    clean(
        "N08-eps-1e-3",
        """
def conv(a, b, **kw):
    return nn.Sequential(nn.Conv2d(a, b, bias=False, **kw), nn.BatchNorm2d(b, eps=0.001), nn.ReLU(inplace=True))


model = nn.Sequential(conv(3, 16, kernel_size=3), conv(16, 32, kernel_size=3, stride=2),
                      nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
inputs = torch.randn(2, 3, 32, 32)
""",
    ),
    clean(
        "N10-momentum-3e-4",
        """
_BN_MOMENTUM = 1 - 0.9997
model = nn.Sequential(nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16, momentum=_BN_MOMENTUM), nn.ReLU(),
                      nn.Conv2d(16, 16, 3, bias=False), nn.BatchNorm2d(16, momentum=None), nn.ReLU())
inputs = torch.randn(2, 3, 16, 16)
""",
    ),
    clean(
        "N12-separable-conv",
        """
class SeparableConv2d(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.conv1 = nn.Conv2d(a, a, 3, padding=1, groups=a, bias=False)
        self.pointwise = nn.Conv2d(a, b, 1, bias=False)

    def forward(self, x):
        return self.pointwise(self.conv1(x))


class Block(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.skip = nn.Conv2d(a, b, 1, bias=False)
        self.skipbn = nn.BatchNorm2d(b)
        self.rep = nn.Sequential(nn.ReLU(), SeparableConv2d(a, b), nn.BatchNorm2d(b),
                                 nn.ReLU(), SeparableConv2d(b, b), nn.BatchNorm2d(b))

    def forward(self, x):
        return self.rep(x) + self.skipbn(self.skip(x))


model = nn.Sequential(nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), Block(16, 24), Block(24, 32),
                      nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
inputs = torch.randn(2, 3, 32, 32)
""",
    ),
    clean(
        "N14-convmixer",
        """
class Residual(nn.Module):
    def __init__(self, fn):
        super().__init__()
        self.fn = fn

    def forward(self, x):
        return self.fn(x) + x


def ConvMixer(dim, depth, kernel_size=5, patch_size=4, n_classes=10):
    return nn.Sequential(
        nn.Conv2d(3, dim, patch_size, patch_size), nn.GELU(), nn.BatchNorm2d(dim),
        *[nn.Sequential(
            Residual(nn.Sequential(nn.Conv2d(dim, dim, kernel_size, groups=dim, padding="same"),
                                   nn.GELU(), nn.BatchNorm2d(dim))),
            nn.Conv2d(dim, dim, 1), nn.GELU(), nn.BatchNorm2d(dim)) for _ in range(depth)],
        nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), nn.Linear(dim, n_classes))


model = ConvMixer(32, 3)
inputs = torch.randn(2, 3, 32, 32)
""",
    ),
    clean(
        "N18-hardsigmoid-gate",
        """
class SqueezeExcite(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1, self.fc2 = nn.Conv2d(c, c // 4, 1), nn.Conv2d(c // 4, c, 1)

    def forward(self, x):
        scale = F.hardsigmoid(self.fc2(F.relu(self.fc1(self.avgpool(x)))), inplace=True)
        return scale * x


model = nn.Sequential(nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.Hardswish(),
                      nn.Conv2d(16, 16, 3, groups=16, bias=False), nn.BatchNorm2d(16), nn.Hardswish(),
                      SqueezeExcite(16), nn.Conv2d(16, 16, 1, bias=False), nn.BatchNorm2d(16))
inputs = torch.randn(2, 3, 16, 16)
""",
    ),
    clean(
        "N20-functional-parameters",
        """
class LayerNorm2d(nn.LayerNorm):
    def forward(self, x):
        x = x.permute(0, 2, 3, 1)
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class StdConv2d(nn.Conv2d):
    def forward(self, x):
        weight = F.batch_norm(self.weight.reshape(1, self.out_channels, -1), None, None, training=True,
                              momentum=0.0, eps=1e-6).reshape_as(self.weight)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)


model = nn.Sequential(StdConv2d(3, 16, 3), LayerNorm2d(16, eps=1e-6), nn.GELU(), StdConv2d(16, 32, 3),
                      nn.GroupNorm(8, 32), nn.ReLU(inplace=True))
inputs = torch.randn(2, 3, 16, 16)
""",
    ),
    clean(
        "N22-batchnorm-act",
        """
class BatchNormAct2d(nn.BatchNorm2d):
    def __init__(self, c, act=nn.ReLU):
        super().__init__(c)
        self.drop = nn.Identity()
        self.act = act(inplace=True)

    def forward(self, x):
        x = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training,
                         self.momentum, self.eps)
        return self.act(self.drop(x))


model = nn.Sequential(nn.Conv2d(3, 16, 3, bias=False), BatchNormAct2d(16), nn.Conv2d(16, 16, 3, bias=False),
                      BatchNormAct2d(16, nn.SiLU), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
inputs = torch.randn(2, 3, 16, 16)
""",
    ),
    clean(
        "N24-custom-init",
        """
model = nn.Sequential(nn.Conv2d(3, 16, 7, 2, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
                      nn.Conv2d(16, 32, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
                      nn.Conv2d(32, 32, 3, groups=32, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
                      nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
for m in model.modules():
    if isinstance(m, nn.Conv2d):
        fan_out = m.kernel_size[0] * m.kernel_size[1] * m.out_channels
        nn.init.normal_(m.weight, 0.0, math.sqrt(2.0 / fan_out))
    elif isinstance(m, nn.Linear):
        nn.init.uniform_(m.weight, -1.0 / math.sqrt(m.out_features), 1.0 / math.sqrt(m.out_features))
        nn.init.zeros_(m.bias)
inputs = torch.randn(2, 3, 32, 32)
""",
    ),
    clean(
        "N26-std-01-classifier",
        """
class VGG(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2),
                                      nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2))
        self.classifier = nn.Sequential(nn.Linear(32 * 64, 128), nn.ReLU(True), nn.Dropout(), nn.Linear(128, 128),
                                        nn.ReLU(True), nn.Dropout(), nn.Linear(128, 10))
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
                nn.init.constant_(m.bias, 0)
            elif isinstance(m, nn.Linear):
                nn.init.normal_(m.weight, 0, 0.01)
                nn.init.constant_(m.bias, 0)

    def forward(self, x):
        return self.classifier(torch.flatten(self.features(x), 1))


model = VGG()
inputs = torch.randn(2, 3, 32, 32)
""",
    ),
    clean(
        "N28-layer-scale",
        """
class ConvNeXtBlock(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.pwconv1, self.pwconv2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(1e-6 * torch.ones(dim))

    def forward(self, x):
        skip = x
        x = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        x = self.gamma * self.pwconv2(F.gelu(self.pwconv1(x)))
        return skip + x.permute(0, 3, 1, 2)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 4, 4)
        self.blocks = nn.Sequential(*[ConvNeXtBlock(32) for _ in range(3)])
        self.norm = nn.LayerNorm(32, eps=1e-6)
        self.head = nn.Linear(32, 10)

    def forward(self, x):
        return self.head(self.norm(self.blocks(self.stem(x)).mean([-2, -1])))


model = Net()
inputs = torch.randn(2, 3, 32, 32)
""",
    ),
    clean(
        "N40-layernorm-over-channels-by-hand",
        """
class LayerNorm2d(nn.Module):
    def __init__(self, channels, eps=1e-6):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def forward(self, x):
        mu = x.mean(1, keepdim=True)
        var = (x - mu).pow(2).mean(1, keepdim=True)
        y = (x - mu) / (var + self.eps).sqrt()
        return self.weight.view(1, -1, 1, 1) * y + self.bias.view(1, -1, 1, 1)


class NAFBlock(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.norm1 = LayerNorm2d(c)
        self.conv1 = nn.Conv2d(c, 2 * c, 1)
        self.conv2 = nn.Conv2d(2 * c, 2 * c, 3, padding=1, groups=2 * c)
        self.sca = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(c, c, 1))
        self.conv3 = nn.Conv2d(c, c, 1)
        self.beta = nn.Parameter(torch.zeros(1, c, 1, 1))

    def forward(self, inp):
        a, b = self.conv2(self.conv1(self.norm1(inp))).chunk(2, dim=1)
        x = a * b
        x = self.conv3(x * self.sca(x))
        return inp + x * self.beta


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.intro = nn.Conv2d(3, 16, 3, padding=1)
        self.blocks = nn.Sequential(NAFBlock(16), NAFBlock(16))
        self.ending = nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, x):
        return self.ending(self.blocks(self.intro(x))) + x


model = Net()
inputs = torch.randn(2, 3, 16, 16)
""",
    ),
    clean(
        "N52-preactivation-resnet",
        """
class PreActBlock(nn.Module):
    def __init__(self, a, b, stride=1):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(a)
        self.conv1 = nn.Conv2d(a, b, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(b)
        self.conv2 = nn.Conv2d(b, b, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(a, b, 1, stride, bias=False) if stride != 1 or a != b else None

    def forward(self, x):
        out = F.relu(self.bn1(x))
        shortcut = self.shortcut(out) if self.shortcut is not None else x
        out = self.conv1(out)
        out = self.conv2(F.relu(self.bn2(out)))
        return out + shortcut


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.layers = nn.Sequential(PreActBlock(16, 16), PreActBlock(16, 32, 2), PreActBlock(32, 32))
        self.bn = nn.BatchNorm2d(32)
        self.linear = nn.Linear(32, 10)

    def forward(self, x):
        out = F.relu(self.bn(self.layers(self.conv1(x))))
        return self.linear(F.adaptive_avg_pool2d(out, 1).view(x.size(0), -1))


model = Net()
inputs = torch.randn(2, 3, 32, 32)
""",
    ),
    clean(
        "N54-frozen-backbone",
        """
class FrozenBatchNorm2d(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.register_buffer("weight", torch.ones(n))
        self.register_buffer("bias", torch.zeros(n))
        self.register_buffer("running_mean", torch.zeros(n))
        self.register_buffer("running_var", torch.ones(n))

    def forward(self, x):
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1)


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, 2, bias=False), FrozenBatchNorm2d(16), nn.ReLU(inplace=True),
                                  nn.Conv2d(16, 32, 3, 2, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True))
        self.cls, self.box = nn.Conv2d(32, 12, 1), nn.Conv2d(32, 8, 1)
        self.body.eval()

    def train(self, mode=True):
        super().train(mode)
        self.body.eval()
        return self

    def forward(self, x):
        x = self.body(x)
        return self.cls(x), self.box(x)


model = Detector()
inputs = torch.randn(2, 3, 32, 32)
""",
    ),
    clean(
        "N62-alexnet-lrn",
        """
model = nn.Sequential(
    nn.Conv2d(3, 24, 5, 2), nn.ReLU(True), nn.LocalResponseNorm(5), nn.MaxPool2d(2),
    nn.Conv2d(24, 32, 3, padding=1), nn.ReLU(True), nn.LocalResponseNorm(5), nn.AdaptiveAvgPool2d(2),
    nn.Flatten(), nn.Dropout(), nn.Linear(128, 64), nn.ReLU(True), nn.Dropout(), nn.Linear(64, 10))
inputs = torch.randn(2, 3, 32, 32)
""",
    ),
    clean(
        "N68-pooling-head",
        """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(1, 16, 3), nn.Conv2d(16, 32, 3)
        self.fc = nn.Linear(32, 10)

    def forward(self, x):
        x = F.relu(F.max_pool2d(self.c1(x), 2))
        x = F.relu(F.max_pool2d(self.c2(x), 2))
        return self.fc(F.avg_pool2d(x, x.shape[-1]).flatten(1))


def train(model, loader, opt):
    for x, y in loader:
        opt.zero_grad()
        F.cross_entropy(model(x), y).backward()
        opt.step()


model = Net()
inputs = torch.randn(2, 1, 28, 28)
""",
    ),
    clean(
        "unet-groupnorm",
        """
def double(a, b):
    return nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.GroupNorm(8, b), nn.SiLU(),
                         nn.Conv2d(b, b, 3, padding=1), nn.GroupNorm(8, b), nn.SiLU())


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.d1, self.d2, self.mid = double(3, 16), double(16, 32), double(32, 32)
        self.up2 = nn.ConvTranspose2d(32, 32, 2, 2)
        self.u2, self.u1 = double(64, 16), double(32, 16)
        self.up1 = nn.ConvTranspose2d(16, 16, 2, 2)
        self.out = nn.Conv2d(16, 2, 1)

    def forward(self, x):
        a = self.d1(x)
        b = self.d2(F.max_pool2d(a, 2))
        m = self.mid(F.max_pool2d(b, 2))
        y = self.u2(torch.cat([self.up2(m), b], 1))
        y = self.u1(torch.cat([self.up1(y), a], 1))
        return self.out(y)


model = UNet()
inputs = torch.randn(2, 3, 32, 32)
""",
    ),
    clean(
        "densenet",
        """
class DenseLayer(nn.Module):
    def __init__(self, c, growth=8):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(c), nn.Conv2d(c, 4 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * growth), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x):
        y = self.conv1(F.relu(self.norm1(x)))
        y = F.dropout(self.conv2(F.relu(self.norm2(y))), p=0.2, training=self.training)
        return torch.cat([x, y], 1)


model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), DenseLayer(16), DenseLayer(24), DenseLayer(32),
                      nn.BatchNorm2d(40), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(40, 10))
inputs = torch.randn(2, 3, 16, 16)
""",
    ),
    clean(
        "cbam-and-fixup",
        """
class CBAM(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(c, c // 4), nn.ReLU(), nn.Linear(c // 4, c))
        self.spatial = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x):
        avg, peak = self.mlp(x.mean((2, 3))), self.mlp(x.amax((2, 3)))
        x = x * torch.sigmoid(avg + peak)[:, :, None, None]
        both = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * torch.sigmoid(self.spatial(both))


class FixupBlock(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.bias1, self.bias2 = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))
        self.scale = nn.Parameter(torch.ones(1))
        self.conv1 = nn.Conv2d(c, c, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(c, c, 3, padding=1, bias=False)
        nn.init.normal_(self.conv1.weight, std=math.sqrt(2 / (c * 9)) * 3 ** -0.5)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x):
        out = F.relu(self.conv1(x + self.bias1))
        return F.relu(self.conv2(out + self.bias2) * self.scale + x)


model = nn.Sequential(nn.Conv2d(3, 16, 3), FixupBlock(16), CBAM(16), FixupBlock(16), nn.AdaptiveAvgPool2d(1),
                      nn.Flatten(), nn.Linear(16, 10))
inputs = torch.randn(2, 3, 16, 16)
""",
    ),
]
