"""BN, BB, SB, MD, FZ, SH, GN, DO: BatchNorm and its neighbours."""

from __future__ import annotations

from corpus import Case

CASES = [
    Case(
        id="BN02",
        status="HEAD",
        codes=("ND201",),
        how="inception block; the channel count as second positional argument",
        text="""
class Inception(nn.Module):
    def __init__(self, cin, n1x1, n5x5_reduce, n5x5, pool_proj):
        super().__init__()
        self.b1 = nn.Sequential(nn.Conv2d(cin, n1x1, 1), nn.BatchNorm2d(n1x1), nn.ReLU(inplace=True))
        self.b3 = nn.Sequential(
            nn.Conv2d(cin, n5x5_reduce, 1),
            nn.BatchNorm2d(n5x5_reduce),
            nn.ReLU(inplace=True),
            nn.Conv2d(n5x5_reduce, n5x5, 3, padding=1),
            nn.BatchNorm2d(n5x5, n5x5),  # fault
            nn.ReLU(inplace=True),
        )
        self.b4 = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1),
            nn.Conv2d(cin, pool_proj, 1),
            nn.BatchNorm2d(pool_proj),
            nn.ReLU(inplace=True),
        )

    def forward(self, x):
        return torch.cat([self.b1(x), self.b3(x), self.b4(x)], dim=1)


class GoogLeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.prelayer = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.a3 = Inception(32, 16, 8, 16, 16)
        self.linear = nn.Linear(48, 10)

    def forward(self, x):
        x = self.a3(self.prelayer(x))
        return self.linear(x.mean((2, 3)))


model = GoogLeNet()
inputs = torch.randn(2, 3, 16, 16)
""",
        swaps=(("nn.BatchNorm2d(n5x5, n5x5)", "nn.BatchNorm2d(n5x5)"),),
    ),
    Case(
        id="BN04",
        status="rep",
        codes=("ND202",),
        how="segmentation net: Caffe's moving average fraction 0.999 as momentum, in every norm",
        text="""
class _ConvBnReLU(nn.Sequential):
    BATCH_NORM = nn.BatchNorm2d

    def __init__(self, cin, cout, kernel, stride, padding, dilation, relu=True):
        super().__init__()
        self.add_module("conv", nn.Conv2d(cin, cout, kernel, stride, padding, dilation, bias=False))
        self.add_module("bn", self.BATCH_NORM(cout, eps=1e-5, momentum=0.999))  # fault
        if relu:
            self.add_module("relu", nn.ReLU())


class DeepLab(nn.Sequential):
    def __init__(self, classes=6):
        super().__init__()
        self.add_module("layer1", _ConvBnReLU(3, 16, 7, 2, 3, 1))
        self.add_module("layer2", _ConvBnReLU(16, 32, 3, 1, 2, 2))
        self.add_module("fc", nn.Conv2d(32, classes, 1))


model = DeepLab()
inputs = torch.randn(2, 3, 32, 32)
""",
        swaps=(("momentum=0.999", "momentum=1 - 0.999"),),
    ),
    Case(
        id="BN06",
        status="PR",
        codes=("ND202",),
        how="tabular feature transformer ported from TensorFlow, momentum 0.95",
        text="""
class FCLayer(nn.Module):
    def __init__(self, cin, cout, norm_params):
        super().__init__()
        self.fc = nn.Linear(cin, cout, bias=False)
        self.norm = nn.BatchNorm1d(cout, **norm_params)  # fault

    def forward(self, x):
        return F.relu(self.norm(self.fc(x)))


class FCStack(nn.Module):
    def __init__(self, sizes=(12, 32, 16), norm_momentum=0.95, norm_epsilon=1e-3):
        super().__init__()
        params = {"momentum": norm_momentum, "eps": norm_epsilon}
        self.stack = nn.ModuleList(FCLayer(a, b, params) for a, b in zip(sizes[:-1], sizes[1:]))
        self.out = nn.Linear(sizes[-1], 1)

    def forward(self, x):
        for layer in self.stack:
            x = layer(x)
        return self.out(x)


model = FCStack()
inputs = torch.randn(8, 12)
""",
        swaps=(("norm_momentum=0.95", "norm_momentum=0.05"),),
    ),
    Case(
        id="BN06b",
        status="PR",
        codes=("ND202",),
        how="momentum set on all norms after the model was built",
        text="""
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, bias=False),
            nn.BatchNorm2d(16),  # fault
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, bias=False),
            nn.BatchNorm2d(32),  # fault
            nn.ReLU(),
        )
        self.fc = nn.Linear(32, 10)

    def forward(self, x):
        return self.fc(self.features(x).mean([2, 3]))


model = Net()
for m in model.modules():
    if isinstance(m, nn.BatchNorm2d):
        m.momentum = 0.99  # fault
inputs = torch.randn(2, 3, 16, 16)
""",
        swaps=(("m.momentum = 0.99", "m.momentum = 0.01"),),
    ),
    Case(
        id="BN08",
        status="fix",
        codes=("ND202",),
        how="Inception with momentum=0.9 in each of its norms",
        text="""
class BNInception(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1_7x7_s2 = nn.Conv2d(3, 16, 7, 2, 3)
        self.conv1_7x7_s2_bn = nn.BatchNorm2d(16, eps=1e-5, momentum=0.9, affine=True)  # fault
        self.conv1_relu = nn.ReLU(inplace=True)
        self.conv2_3x3 = nn.Conv2d(16, 32, 3, 1, 1)
        self.conv2_3x3_bn = nn.BatchNorm2d(32, eps=1e-5, momentum=0.9, affine=True)  # fault
        self.conv2_relu = nn.ReLU(inplace=True)
        self.last_linear = nn.Linear(32, 10)

    def features(self, x):
        x = self.conv1_relu(self.conv1_7x7_s2_bn(self.conv1_7x7_s2(x)))
        return self.conv2_relu(self.conv2_3x3_bn(self.conv2_3x3(x)))

    def logits(self, features):
        x = F.adaptive_avg_pool2d(features, 1)
        return self.last_linear(x.view(x.size(0), -1))

    def forward(self, x):
        return self.logits(self.features(x))


def bninception():
    return BNInception()


model = bninception()
inputs = torch.randn(2, 3, 32, 32)
""",
        swaps=(("momentum=0.9,", "momentum=0.1,"),),
    ),
    Case(
        id="BN08b",
        status="fix",
        codes=("ND202",),
        how="functional batch_norm with momentum 0.9",
        text="""
class SplitBN(nn.Module):
    def __init__(self, c=16):
        super().__init__()
        self.conv = nn.Conv2d(3, c, 3, bias=False)
        self.weight = nn.Parameter(torch.ones(c))
        self.bias = nn.Parameter(torch.zeros(c))
        self.register_buffer("mean", torch.zeros(c))
        self.register_buffer("var", torch.ones(c))
        self.out = nn.Conv2d(c, 4, 1)

    def forward(self, x):
        x = self.conv(x)
        x = F.batch_norm(x, self.mean, self.var, self.weight, self.bias, self.training, 0.9, 1e-5)  # fault
        return self.out(F.relu(x))


model = SplitBN()
inputs = torch.randn(2, 3, 12, 12)
""",
        swaps=(("self.training, 0.9, 1e-5", "self.training, 0.1, 1e-5"),),
    ),
    Case(
        id="BN10",
        status="lib",
        codes=("ND201", "ND202"),
        how="eps of zero and a momentum above one",
        text="""
class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(8, eps=0)  # fault
        self.conv2 = nn.Conv2d(8, 8, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(8, momentum=1.5)  # fault

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)))


model = Block()
inputs = torch.randn(4, 3, 12, 12)
""",
        swaps=((", eps=0", ", eps=1e-5"), ("momentum=1.5", "momentum=0.1")),
    ),
    Case(
        id="BN-x1",
        status="own",
        codes=("ND201",),
        how="the Keras order (momentum first) in positional arguments",
        text="""
model = nn.Sequential(
    nn.Conv1d(4, 16, 5, bias=False),
    nn.BatchNorm1d(16, 0.8),  # fault
    nn.LeakyReLU(0.2),
    nn.Conv1d(16, 1, 3),
)
inputs = torch.randn(4, 4, 30)
""",
        swaps=(("nn.BatchNorm1d(16, 0.8)", "nn.BatchNorm1d(16, momentum=0.2)"),),
    ),
    Case(
        id="BB02",
        status="rep",
        codes=("ND101",),
        how="U-Net++ block of two convolutions with a bias",
        text="""
class VGGBlock(nn.Module):
    def __init__(self, cin, mid, cout):
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(cin, mid, 3, padding=1)  # fault
        self.bn1 = nn.BatchNorm2d(mid)
        self.conv2 = nn.Conv2d(mid, cout, 3, padding=1)  # fault
        self.bn2 = nn.BatchNorm2d(cout)

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(out)))


class UNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.pool, self.up = nn.MaxPool2d(2, 2), nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        self.conv0_0, self.conv1_0 = VGGBlock(3, 8, 8), VGGBlock(8, 16, 16)
        self.conv0_1 = VGGBlock(24, 8, 8)
        self.final = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        x0 = self.conv0_0(x)
        x1 = self.conv1_0(self.pool(x0))
        return self.final(self.conv0_1(torch.cat([x0, self.up(x1)], 1)))


model = UNet()
inputs = torch.randn(2, 3, 16, 16)
""",
        swaps=((", 3, padding=1)", ", 3, padding=1, bias=False)"),),
    ),
    Case(
        id="BB04",
        status="PR",
        codes=("ND101",),
        how="convolution and linear layers in front of norms, functional activations",
        text="""
class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(3, 8, 3, padding=1)  # fault
        self.norm = nn.BatchNorm3d(8)
        self.fc = nn.Linear(8, 32)  # fault
        self.fcnorm = nn.BatchNorm1d(32)
        self.out = nn.Linear(32, 4)

    def forward(self, video):
        h = F.gelu(self.norm(self.conv(video)))
        h = h.mean(dim=(2, 3, 4))
        return self.out(F.gelu(self.fcnorm(self.fc(h))))


model = Head()
inputs = torch.randn(2, 3, 4, 8, 8)
""",
        swaps=(
            ("padding=1)", "padding=1, bias=False)"),
            ("nn.Linear(8, 32)", "nn.Linear(8, 32, bias=False)"),
        ),
    ),
    Case(
        id="BB06",
        status="rep",
        codes=("ND101",),
        how="generator stages in nn.Sequential, upsampling in front of the convolution",
        text="""
def up_block(cin, cout):
    return nn.Sequential(
        nn.Upsample(scale_factor=2, mode="nearest"),
        nn.Conv2d(cin, cout, 3, 1, 1),  # fault
        nn.BatchNorm2d(cout),
        nn.ReLU(True),
    )


class Generator(nn.Module):
    def __init__(self, z=32):
        super().__init__()
        self.fc = nn.Sequential(nn.Linear(z, 64 * 16, bias=False), nn.BatchNorm1d(64 * 16), nn.ReLU(True))
        self.up1, self.up2 = up_block(64, 32), up_block(32, 16)
        self.img = nn.Sequential(nn.Conv2d(16, 3, 3, 1, 1), nn.Tanh())

    def forward(self, z):
        h = self.fc(z).view(-1, 64, 4, 4)
        return self.img(self.up2(self.up1(h)))


model = Generator()
inputs = torch.randn(4, 32)
""",
        swaps=(("nn.Conv2d(cin, cout, 3, 1, 1)", "nn.Conv2d(cin, cout, 3, 1, 1, bias=False)"),),
    ),
    Case(
        id="BB08",
        status="HEAD",
        codes=("ND101",),
        how="ConvNormAct in timm style with the bias left on, inside a fused class",
        text="""
class BatchNormAct2d(nn.BatchNorm2d):
    def __init__(self, num_features, act_layer=nn.SiLU):
        super().__init__(num_features)
        self.act = act_layer(inplace=True)

    def forward(self, x):
        x = F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum, self.eps
        )
        return self.act(x)


class ConvNormAct(nn.Module):
    def __init__(self, cin, cout, k=3, s=1, groups=1):
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, k, s, k // 2, groups=groups)  # fault
        self.bn = BatchNormAct2d(cout)

    def forward(self, x):
        return self.bn(self.conv(x))


model = nn.Sequential(ConvNormAct(3, 16, s=2), ConvNormAct(16, 16, groups=16), ConvNormAct(16, 32, k=1))
inputs = torch.randn(2, 3, 32, 32)
""",
        swaps=(("groups=groups)", "groups=groups, bias=False)"),),
    ),
    Case(
        id="BB-x1",
        status="own",
        codes=("ND101",),
        how="transposed convolution with a bias in front of InstanceNorm",
        text="""
class Up(nn.Module):
    def __init__(self):
        super().__init__()
        self.deconv = nn.ConvTranspose2d(8, 16, 4, 2, 1)  # fault
        self.norm = nn.InstanceNorm2d(16, affine=True)
        self.last = nn.Conv2d(16, 3, 7, padding=3)

    def forward(self, x):
        return torch.tanh(self.last(torch.relu(self.norm(self.deconv(x)))))


model = Up()
inputs = torch.randn(2, 8, 8, 8)
""",
        swaps=(("4, 2, 1)", "4, 2, 1, bias=False)"),),
    ),
    Case(
        id="SB02",
        status="lib",
        mode="D",
        codes=("ND114",),
        how="GroupNorm with one channel a group behind a global pool: zero whatever the data",
        text="""
class SqueezeExcite(nn.Module):
    def __init__(self, c=32, r=8):
        super().__init__()
        self.reduce = nn.Conv2d(c, r, 1, bias=False)
        self.gn = nn.GroupNorm(r, r)  # fault
        self.expand = nn.Conv2d(r, c, 1)

    def forward(self, x):
        s = F.adaptive_avg_pool2d(x, 1)
        s = F.relu(self.gn(self.reduce(s)))  # fault
        return x * torch.sigmoid(self.expand(s))


model = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), SqueezeExcite())
inputs = torch.randn(2, 3, 16, 16)
""",
        swaps=(("nn.GroupNorm(r, r)", "nn.GroupNorm(1, r)"),),
    ),
    Case(
        id="SB02b",
        status="lib",
        codes=("ND114",),
        how="F.group_norm on vectors, as many groups as features",
        text="""
class Mlp(nn.Module):
    def __init__(self, d=16):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(10, d), nn.Linear(d, 2)
        self.d = d

    def forward(self, x):
        h = F.group_norm(self.fc1(x), self.d)  # fault
        return self.fc2(torch.tanh(h))


model = Mlp()
inputs = torch.randn(4, 10)
""",
        swaps=(("F.group_norm(self.fc1(x), self.d)", "F.group_norm(self.fc1(x), 1)"),),
    ),
    Case(
        id="SB-x1",
        status="own",
        codes=("ND114",),
        how="LayerNorm(1) behind a regression head",
        text="""
class Value(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(32, 64)
        self.score = nn.Linear(64, 1)
        self.norm = nn.LayerNorm(1)  # fault

    def forward(self, x):
        return self.norm(self.score(F.relu(self.fc(x))))  # fault


model = Value()
inputs = torch.randn(4, 32)
""",
        swaps=(
            ("nn.LayerNorm(1)", "nn.LayerNorm(64)"),
            ("self.norm(self.score(F.relu(self.fc(x))))", "self.score(F.relu(self.norm(self.fc(x))))"),
        ),
    ),
    Case(
        id="MD12",
        status="lib",
        mode="SR",
        codes=("ND204",),
        how="BatchNorm without running statistics: evaluation depends on the batch",
        text="""
class Encoder(nn.Module):
    def __init__(self, track=False):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(16, track_running_stats=track)  # fault
        self.conv2 = nn.Conv2d(16, 16, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(16, track_running_stats=track)  # fault
        self.fc = nn.Linear(16, 5)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        x = F.relu(self.bn2(self.conv2(x)))
        return self.fc(x.mean((-2, -1)))


model = Encoder()
inputs = torch.randn(4, 1, 20, 20)
""",
        swaps=(("track=False", "track=True"),),
    ),
    Case(
        id="FZ02",
        status="PR",
        mode="SR",
        codes=("ND506",),
        how="encoder frozen by requires_grad, its BatchNorm still in train mode",
        text="""
class Encoder(nn.Module):
    def __init__(self, d=32):
        super().__init__()
        self.w1 = nn.Linear(20, d, bias=False)
        self.bn = nn.BatchNorm1d(d)  # fault
        self.w2 = nn.Linear(d, d)

    def forward(self, x):
        return self.w2(F.relu(self.bn(self.w1(x))))


class Predictor(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = Encoder()
        self.ffn = nn.Sequential(nn.ReLU(), nn.Linear(32, 1))

    def forward(self, x):
        return self.ffn(self.encoder(x))


model = Predictor()
for p in model.encoder.parameters():
    p.requires_grad = False
model.train()
inputs = torch.randn(8, 20)
""",
        swaps=(("model.train()\n", "model.train()\nmodel.encoder.eval()\n"),),
    ),
    Case(
        id="FZ04",
        status="rep",
        mode="SR",
        codes=("ND506",),
        how="a flag freeze_bn that stops the gradient and leaves the mode",
        text="""
class DeepLab(nn.Module):
    def __init__(self, freeze_bn=True):
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),  # fault
            nn.ReLU(),
        )
        self.decoder = nn.Conv2d(16, 5, 1)
        if freeze_bn:
            self.freeze_bn()

    def freeze_bn(self):
        for m in self.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.weight.requires_grad = False
                m.bias.requires_grad = False

    def forward(self, x):
        return self.decoder(self.backbone(x))


model = DeepLab()
inputs = torch.randn(2, 3, 16, 16)
""",
        swaps=(
            (
                "                m.weight.requires_grad",
                "                m.eval()\n                m.weight.requires_grad",
            ),
        ),
    ),
    Case(
        id="FZ06",
        status="rep",
        mode="T",
        codes=("ND506",),
        how="stages are frozen in the constructor; train() in the training script undoes the eval of their norms",
        text="""
class ResNetLike(nn.Module):
    def __init__(self, frozen_stages=1):
        super().__init__()
        self.frozen_stages = frozen_stages
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU())  # fault
        self.stage1 = nn.Sequential(nn.Conv2d(16, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU())  # fault
        self.stage2 = nn.Sequential(nn.Conv2d(16, 32, 3, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.fc = nn.Linear(32, 4)
        self._freeze_stages()

    def _freeze_stages(self):
        for stage in [self.stem, self.stage1][: self.frozen_stages + 1]:
            stage.eval()
            for param in stage.parameters():
                param.requires_grad = False

    def train(self, mode=True):
        super().train(mode)
        return self

    def forward(self, x):
        return self.fc(self.stage2(self.stage1(self.stem(x))).mean((2, 3)))


model = ResNetLike()
optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.01)
inputs = torch.randn(4, 3, 16, 16)
model.train()
loss = F.cross_entropy(model(inputs), torch.randint(0, 4, (4,)))
loss.backward()
""",
        swaps=(
            ("        super().train(mode)\n", "        super().train(mode)\n        self._freeze_stages()\n"),
        ),
    ),
    Case(
        id="SH02",
        status="rep",
        mode="SR",
        codes=("ND105",),
        how="one norm object behind two convolutions",
        text="""
class MyNet(nn.Module):
    def __init__(self, cin=3, channels=16):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(channels)  # fault
        self.conv3 = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        x = F.relu(self.bn(self.conv1(x)))  # fault
        x = F.relu(self.bn(self.conv2(x)))  # fault
        return self.conv3(x)


model = MyNet()
inputs = torch.randn(1, 3, 32, 32)
""",
        swaps=(
            (
                "        self.bn = nn.BatchNorm2d(channels)\n",
                "        self.bn1 = nn.BatchNorm2d(channels)\n        self.bn2 = nn.BatchNorm2d(channels)\n",
            ),
            ("self.bn(self.conv1(x))", "self.bn1(self.conv1(x))"),
            ("self.bn(self.conv2(x))", "self.bn2(self.conv2(x))"),
        ),
    ),
    Case(
        id="SH02b",
        status="rep",
        codes=("ND105",),
        how="a Sequential that lists one norm object twice",
        text="""
norm = nn.BatchNorm1d(32)  # fault
model = nn.Sequential(
    nn.Linear(10, 32, bias=False), norm, nn.ReLU(),  # fault
    nn.Linear(32, 32, bias=False), norm, nn.ReLU(),  # fault
    nn.Linear(32, 2),
)
inputs = torch.randn(8, 10)
""",
        swaps=(
            ("nn.Linear(32, 32, bias=False), norm,", "nn.Linear(32, 32, bias=False), nn.BatchNorm1d(32),"),
        ),
    ),
    Case(
        id="SH02c",
        status="rep",
        codes=("ND702", "ND703"),
        how="the same at run time: the statistics mix those of two convolutions, and eval mode uses them",
        given=("data",),
        text="""
torch.manual_seed(0)


class MyNet(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.bn = nn.BatchNorm2d(width)  # fault
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, 10, 1)

    def forward(self, x):
        x = F.relu(self.bn(self.conv1(x)))
        x = F.relu(self.bn(self.conv2(x)))
        return self.conv3(x)


def images(count=16):
    return F.interpolate(torch.randn(count, 3, 8, 8), size=16, mode="bilinear")


model = MyNet()
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
for _ in range(100):
    optimizer.zero_grad()
    out = model(images())
    F.cross_entropy(out, out.argmax(1)).backward()
    optimizer.step()
inputs = images()
data = [images() for _ in range(4)]
""",
        swaps=(("x = F.relu(self.bn(self.conv2(x)))", "x = F.relu(self.bn2(self.conv2(x)))"),),
    ),
    Case(
        id="GN02",
        status="rep",
        codes=("ND106",),
        how="critic: spectral_norm on the convolution, BatchNorm behind it",
        text="""
from torch.nn.utils import spectral_norm


class Critic(nn.Module):
    def __init__(self, dim=16):
        super().__init__()
        layers = [spectral_norm(nn.Conv2d(3, dim, 4, 2, 1)), nn.LeakyReLU(0.1)]
        layers += [spectral_norm(nn.Conv2d(dim, dim * 2, 4, 2, 1, bias=False))]  # fault
        layers += [nn.BatchNorm2d(dim * 2), nn.LeakyReLU(0.1)]  # fault
        self.main = nn.Sequential(*layers)
        self.last = nn.Conv2d(dim * 2, 1, 4)

    def forward(self, x):
        return self.last(self.main(x)).flatten()


model = Critic()
inputs = torch.randn(2, 3, 32, 32)
""",
        swaps=(("nn.BatchNorm2d(dim * 2), nn.LeakyReLU", "nn.LeakyReLU"),),
    ),
    Case(
        id="GN02b",
        status="rep",
        codes=("ND106",),
        how="the same with the parametrization of today",
        text="""
from torch.nn.utils.parametrizations import spectral_norm


class Block(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.conv = spectral_norm(nn.Conv2d(cin, cout, 3, padding=1, bias=False))  # fault
        self.norm = nn.BatchNorm2d(cout)  # fault

    def forward(self, x):
        return F.leaky_relu(self.norm(self.conv(x)), 0.2)


model = nn.Sequential(Block(3, 16), Block(16, 16), nn.Conv2d(16, 1, 1))
inputs = torch.randn(2, 3, 16, 16)
""",
        swaps=(
            ("self.norm(self.conv(x))", "self.conv(x)"),
            ("        self.norm = nn.BatchNorm2d(cout)\n", ""),
        ),
    ),
    Case(
        id="GN04",
        status="rep",
        codes=("ND106",),
        how="weight normalization in front of BatchNorm",
        text="""
class TemporalBlock(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.conv = nn.utils.parametrizations.weight_norm(nn.Conv1d(cin, cout, 3, padding=1, bias=False))  # fault
        self.bn = nn.BatchNorm1d(cout)  # fault

    def forward(self, x):
        return torch.relu(self.bn(self.conv(x)))


model = nn.Sequential(TemporalBlock(4, 16), TemporalBlock(16, 16), nn.Conv1d(16, 2, 1))
inputs = torch.randn(4, 4, 20)
""",
        swaps=(
            (
                "nn.utils.parametrizations.weight_norm(nn.Conv1d(cin, cout, 3, padding=1, bias=False))",
                "nn.Conv1d(cin, cout, 3, padding=1, bias=False)",
            ),
        ),
    ),
    Case(
        id="GN-x1",
        status="own",
        codes=("ND106",),
        how="spectral_norm on a linear layer, BatchNorm1d behind, functional activation",
        text="""
class D(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.utils.parametrizations.spectral_norm(nn.Linear(20, 32, bias=False))  # fault
        self.bn1 = nn.BatchNorm1d(32)  # fault
        self.fc2 = nn.Linear(32, 1)

    def forward(self, x):
        return self.fc2(F.elu(self.bn1(self.fc1(x))))


model = D()
inputs = torch.randn(8, 20)
""",
        swaps=(("self.bn1(self.fc1(x))", "self.fc1(x)"), ("        self.bn1 = nn.BatchNorm1d(32)\n", "")),
    ),
    Case(
        id="DO02",
        status="rep",
        codes=("ND102",),
        how="convolution, dropout, norm, ReLU",
        text="""
class ConvBlock(nn.Module):
    def __init__(self, cin, cout, p=0.2):
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, 3, padding=1)
        self.drop = nn.Dropout(p)  # fault
        self.bn = nn.BatchNorm2d(cout)  # fault

    def forward(self, x):
        return F.relu(self.bn(self.drop(self.conv(x))))  # fault


model = nn.Sequential(ConvBlock(3, 16), nn.MaxPool2d(2), ConvBlock(16, 32), nn.Flatten(), nn.Linear(32 * 64, 10))
inputs = torch.randn(2, 3, 16, 16)
""",
        swaps=(("F.relu(self.bn(self.drop(self.conv(x))))", "self.drop(F.relu(self.bn(self.conv(x))))"),),
    ),
    Case(
        id="DO02b",
        status="rep",
        codes=("ND102",),
        how="nn.Sequential of linear layers with dropout in front of BatchNorm1d",
        text="""
model = nn.Sequential(
    nn.Linear(30, 64, bias=False),
    nn.Dropout(0.5),  # fault
    nn.BatchNorm1d(64),  # fault
    nn.ReLU(),
    nn.Linear(64, 4),
)
inputs = torch.randn(8, 30)
""",
        swaps=(
            (
                "    nn.Dropout(0.5),\n    nn.BatchNorm1d(64),\n    nn.ReLU(),\n",
                "    nn.BatchNorm1d(64),\n    nn.ReLU(),\n    nn.Dropout(0.5),\n",
            ),
        ),
    ),
    Case(
        id="DO-x1",
        status="own",
        codes=("ND102",),
        how="Dropout2d behind an activation, then the norm",
        text="""
class Stage(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.bn = nn.BatchNorm2d(16)  # fault
        self.conv2 = nn.Conv2d(16, 4, 1)

    def forward(self, x):
        x = F.dropout2d(F.elu(self.conv1(x)), 0.3, self.training)  # fault
        return self.conv2(self.bn(x))  # fault


model = Stage()
inputs = torch.randn(2, 3, 16, 16)
""",
        swaps=(
            ("x = F.dropout2d(F.elu(self.conv1(x)), 0.3, self.training)", "x = F.elu(self.conv1(x))"),
            ("self.conv2(self.bn(x))", "self.conv2(F.dropout2d(self.bn(x), 0.3, self.training))"),
        ),
    ),
]
