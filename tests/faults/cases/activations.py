"""AC: activations that are missing, doubled, bound in place or put on the output."""

from __future__ import annotations

from corpus import Case

CASES = [
    Case(
        id="AC02",
        status="fix",
        codes=("ND301",),
        how="trajectory head: two linear layers called one inside the other",
        text="""
class CoverNet(nn.Module):
    def __init__(self, modes=16):
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Conv2d(3, 32, 3, stride=2, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        )
        self.fc1 = nn.Linear(32 + 3, 256)  # fault
        self.fc2 = nn.Linear(256, modes)  # fault

    def forward(self, image, state):
        features = torch.flatten(self.backbone(image), start_dim=1)
        x = torch.cat([features, state], dim=1)
        return self.fc2(self.fc1(x))  # fault


model = CoverNet()
inputs = (torch.randn(2, 3, 32, 32), torch.randn(2, 3))
""",
        swaps=(("self.fc2(self.fc1(x))", "self.fc2(F.relu(self.fc1(x)))"),),
    ),
    Case(
        id="AC02b",
        status="fix",
        codes=("ND301",),
        how="a list of hidden layers in nn.Sequential, the activation forgotten, dropout between",
        text="""
def mlp(sizes, p=0.1):
    layers = []
    for i in range(len(sizes) - 1):
        layers.append(nn.Linear(sizes[i], sizes[i + 1]))  # fault
        if i < len(sizes) - 2:
            layers.append(nn.Dropout(p))
    return nn.Sequential(*layers)


model = mlp([40, 64, 64, 10])
inputs = torch.randn(4, 40)
""",
        swaps=(("layers.append(nn.Dropout(p))", "layers += [nn.ReLU(), nn.Dropout(p)]"),),
    ),
    Case(
        id="AC04",
        status="rep",
        codes=("ND301",),
        how="chess residual tower: conv, norm, conv, norm, no activation inside the block",
        text="""
class ResidualBlock(nn.Module):
    def __init__(self, filters):
        super().__init__()
        self.conv1 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)  # fault
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)  # fault
        self.bn2 = nn.BatchNorm2d(filters)

    def forward(self, x):
        out = self.bn1(self.conv1(x))  # fault
        out = self.bn2(self.conv2(out))  # fault
        return F.relu(out + x)


class Tower(nn.Module):
    def __init__(self, filters=32, blocks=3):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(12, filters, 3, padding=1, bias=False), nn.BatchNorm2d(filters), nn.ReLU()
        )
        self.blocks = nn.Sequential(*[ResidualBlock(filters) for _ in range(blocks)])
        self.value = nn.Linear(filters * 64, 1)

    def forward(self, board):
        return self.value(self.blocks(self.stem(board)).flatten(1))


model = Tower()
inputs = torch.randn(2, 12, 8, 8)
""",
        swaps=(("self.bn1(self.conv1(x))", "F.relu(self.bn1(self.conv1(x)))"),),
    ),
    Case(
        id="AC10",
        status="rep",
        mode="R",
        codes=("ND908", "ND109", "ND501"),
        how="a subclass of BatchNorm2d whose forward applies the activation only",
        text="""
class BatchNormAct(nn.BatchNorm2d):
    def __init__(self, num_features, activation="none"):
        super().__init__(num_features)
        if activation == "leaky_relu":
            self.activation = nn.LeakyReLU(0.1)
        elif activation == "none":
            self.activation = lambda x: x
        else:
            self.activation = nn.ReLU(inplace=True)

    def forward(self, x):
        return self.activation(x)  # fault


class FastNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = BatchNormAct(16, activation="leaky_relu")  # fault
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1, bias=False)
        self.bn2 = BatchNormAct(32, activation="relu")  # fault
        self.head = nn.Conv2d(32, 5, 1)

    def forward(self, x):
        x = self.bn1(self.conv1(x))
        x = self.bn2(self.conv2(x))
        return self.head(x)


model = FastNet()
inputs = torch.randn(2, 3, 16, 16)
""",
        swaps=(("return self.activation(x)", "return self.activation(super().forward(x))"),),
    ),
    Case(
        id="AC10b",
        status="rep",
        codes=("ND803",),
        how="the same in a training: the norms run and their parameters never get a gradient",
        text="""
class BatchNorm2d(nn.BatchNorm2d):
    def __init__(self, num_features, activation):
        super().__init__(num_features)
        self.activation = activation

    def forward(self, x):
        return self.activation(x)


class FastNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.bn1 = BatchNorm2d(16, nn.LeakyReLU(0.1))  # fault
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False)
        self.bn2 = BatchNorm2d(32, nn.LeakyReLU(0.1))  # fault
        self.head = nn.Conv2d(32, 5, 1)

    def forward(self, x):
        x = self.bn1(self.conv1(x))
        x = self.bn2(self.conv2(x))
        return self.head(x)


model = FastNet()


def train(watch):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)
    for _ in range(8):
        image = torch.randn(16, 3, 16, 16)
        target = (F.avg_pool2d(image, 4).mean(1) * 8 + 2).long().clamp(0, 4)
        loss = F.cross_entropy(model(image), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        watch.step(loss)
""",
        swaps=(("return self.activation(x)", "return self.activation(super().forward(x))"),),
    ),
    Case(
        id="AC12",
        status="rep",
        codes=("ND301",),
        how="detection head: a list of convolutions in a loop, the activation is built and never called",
        text="""
class RetinaHead(nn.Module):
    def __init__(self, cin=32, feat=32, stacked=3, anchors=9, classes=4):
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.cls_convs = nn.ModuleList()
        self.reg_convs = nn.ModuleList()
        for i in range(stacked):
            chn = cin if i == 0 else feat
            self.cls_convs.append(nn.Conv2d(chn, feat, 3, padding=1))  # fault
            self.reg_convs.append(nn.Conv2d(chn, feat, 3, padding=1))  # fault
        self.cls_out = nn.Conv2d(feat, anchors * classes, 3, padding=1)  # fault
        self.reg_out = nn.Conv2d(feat, anchors * 4, 3, padding=1)  # fault

    def forward_single(self, x):
        cls_feat, reg_feat = x, x
        for conv in self.cls_convs:
            cls_feat = conv(cls_feat)  # fault
        for conv in self.reg_convs:
            reg_feat = conv(reg_feat)  # fault
        return self.cls_out(cls_feat).sigmoid(), self.reg_out(reg_feat)  # fault

    def forward(self, feats):
        return [self.forward_single(f) for f in feats]


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.c3 = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.SiLU())
        self.c4 = nn.Sequential(nn.Conv2d(32, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.SiLU())
        self.head = RetinaHead()

    def forward(self, x):
        p3 = self.c3(x)
        return self.head([p3, self.c4(p3)])


model = Detector()
inputs = torch.randn(1, 3, 64, 64)
""",
        swaps=(
            ("cls_feat = conv(cls_feat)", "cls_feat = self.relu(conv(cls_feat))"),
            ("reg_feat = conv(reg_feat)", "reg_feat = self.relu(conv(reg_feat))"),
        ),
    ),
    Case(
        id="AC14",
        status="fix",
        codes=("ND315",),
        how="residual branch in nn.Sequential that starts with an in-place ReLU; += of the input",
        text="""
class ResBlock(nn.Module):
    def __init__(self, in_channel, channel):
        super().__init__()
        self.conv = nn.Sequential(
            nn.ReLU(inplace=True),  # fault
            nn.Conv2d(in_channel, channel, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channel, in_channel, 1),
        )

    def forward(self, input):
        out = self.conv(input)  # fault
        out += input
        return out


class Encoder(nn.Module):
    def __init__(self, channel=32):
        super().__init__()
        blocks = [nn.Conv2d(3, channel, 4, stride=2, padding=1), nn.ReLU(inplace=True), nn.Conv2d(channel, channel, 3, padding=1)]
        blocks += [ResBlock(channel, 8) for _ in range(2)]
        self.blocks = nn.Sequential(*blocks, nn.ReLU(inplace=True))

    def forward(self, x):
        return self.blocks(x)


model = Encoder()
inputs = torch.randn(2, 3, 16, 16)
""",
        swaps=(
            (
                "            nn.ReLU(inplace=True),\n            nn.Conv2d(in_channel",
                "            nn.ReLU(),\n            nn.Conv2d(in_channel",
            ),
        ),
    ),
    Case(
        id="AC14b",
        status="fix",
        codes=("ND315",),
        how="pre-activation block that uses torch.relu_ on the tensor that the skip reads later",
        text="""
class PreAct(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.fc1 = nn.Linear(dim, dim)
        self.fc2 = nn.Linear(dim, dim)

    def branch(self, x):
        h = torch.relu_(x)  # fault
        h = self.fc1(h)
        return self.fc2(F.relu(h))

    def forward(self, x):
        return x + self.branch(x)


class Net(nn.Module):
    def __init__(self, dim=32):
        super().__init__()
        self.inp = nn.Linear(10, dim)
        self.blocks = nn.ModuleList([PreAct(dim) for _ in range(2)])
        self.out = nn.Linear(dim, 3)

    def forward(self, x):
        x = self.inp(x)
        for block in self.blocks:
            x = block(x)
        return self.out(F.relu(x))


model = Net()
inputs = torch.randn(4, 10)
""",
        swaps=(("torch.relu_(x)", "torch.relu(x)"),),
    ),
    Case(
        id="AC16",
        status="fix",
        codes=("ND302",),
        how="stochastic actor: tanh on mu, and tanh on the action that is sampled around it",
        text="""
class Actor(nn.Module):
    def __init__(self, state=17, action=6, hidden=64):
        super().__init__()
        self.preprocess = nn.Sequential(nn.Linear(state, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.mu = nn.Linear(hidden, action)
        self.sigma = nn.Linear(hidden, action)

    def forward(self, s):
        logits = self.preprocess(s)
        mu = torch.tanh(self.mu(logits))  # fault
        sigma = torch.exp(torch.clamp(self.sigma(logits), -20, 2))
        return mu, sigma


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.actor = Actor()

    def forward(self, obs):
        mu, sigma = self.actor(obs)
        dist = torch.distributions.Normal(mu, sigma, validate_args=False)
        x = dist.rsample()
        y = torch.tanh(x)  # fault
        log_prob = dist.log_prob(x) - torch.log(1 - y.pow(2) + 1e-6)
        return y, log_prob.sum(-1, keepdim=True)


model = Policy()
inputs = torch.randn(4, 17)
""",
        swaps=(("torch.tanh(self.mu(logits))", "self.mu(logits)"),),
    ),
    Case(
        id="AC16b",
        status="fix",
        codes=("ND302",),
        how="deterministic actor with a Tanh at the end of its Sequential and torch.tanh in forward",
        text="""
class DDPGActor(nn.Module):
    def __init__(self, state=8, action=2, limit=2.0):
        super().__init__()
        self.limit = limit
        self.net = nn.Sequential(
            nn.Linear(state, 64), nn.ReLU(),
            nn.Linear(64, action), nn.Tanh(),  # fault
        )

    def forward(self, obs):
        return self.limit * torch.tanh(self.net(obs))  # fault


model = DDPGActor()
inputs = torch.randn(4, 8)
""",
        swaps=(("nn.Linear(64, action), nn.Tanh(),", "nn.Linear(64, action),"),),
    ),
    Case(
        id="AC18",
        status="rep",
        codes=("ND302",),
        how="two ReLUs in a row, one in the block and one in the caller: an information",
        text="""
class ConvUnit(nn.Module):
    def __init__(self, cin, cout):
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, 3, padding=1)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.conv(x))  # fault


class DepthHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = ConvUnit(3, 16)
        self.conv2 = ConvUnit(16, 1)

    def forward(self, x):
        depth = self.conv2(self.conv1(x))
        depth = F.relu(depth)  # fault
        return depth.squeeze(1)


model = DepthHead()
inputs = torch.randn(2, 3, 16, 16)
""",
        swaps=(("        depth = F.relu(depth)\n", ""),),
    ),
    Case(
        id="AC18b",
        status="rep",
        codes=("ND302",),
        how="ReLU in the Sequential behind a ReLU",
        text="""
model = nn.Sequential(
    nn.Linear(16, 32),
    nn.LayerNorm(32),
    nn.ReLU(),  # fault
    nn.Dropout(0.1),
    nn.ReLU(),  # fault
    nn.Linear(32, 4),
)
inputs = torch.randn(4, 16)
""",
        swaps=(("    nn.Dropout(0.1),\n    nn.ReLU(),\n", "    nn.Dropout(0.1),\n"),),
    ),
    Case(
        id="AC-x1",
        status="own",
        codes=("ND316",),
        how="nn.LeakyReLU(True): the slope is 1, the net is linear",
        text="""
class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1 = nn.Conv2d(3, 16, 4, 2, 1)
        self.c2 = nn.Conv2d(16, 32, 4, 2, 1)
        self.act = nn.LeakyReLU(True)  # fault
        self.fc = nn.Linear(32 * 16, 1)

    def forward(self, x):
        x = self.act(self.c1(x))
        x = self.act(self.c2(x))
        return self.fc(x.flatten(1))


model = Critic()
inputs = torch.randn(2, 3, 16, 16)
""",
        swaps=(("nn.LeakyReLU(True)", "nn.LeakyReLU(0.2, inplace=True)"),),
    ),
    Case(
        id="AC-x2",
        status="own",
        codes=("ND317", "ND301"),
        how="the result of F.relu is thrown away",
        text="""
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(20, 50)
        self.fc2 = nn.Linear(50, 50)
        self.fc3 = nn.Linear(50, 2)

    def forward(self, x):
        x = F.relu(self.fc1(x))
        x = self.fc2(x)
        F.relu(x)  # fault
        return self.fc3(x)


model = Net()
inputs = torch.randn(4, 20)
""",
        swaps=(("        F.relu(x)\n", "        x = F.relu(x)\n"),),
    ),
    Case(
        id="DR02",
        status="fix",
        codes=("ND318",),
        how="attentional factorization machine: F.dropout without training=",
        text="""
class AFM(nn.Module):
    def __init__(self, fields=6, dim=16, attn=16, dropouts=(0.2, 0.2)):
        super().__init__()
        self.embedding = nn.Embedding(100, dim)
        self.attention = nn.Linear(dim, attn)
        self.projection = nn.Linear(attn, 1)
        self.fc = nn.Linear(dim, 1)
        self.dropouts = dropouts
        self.row = [i for i in range(fields) for j in range(i + 1, fields)]
        self.col = [j for i in range(fields) for j in range(i + 1, fields)]

    def forward(self, x):
        x = self.embedding(x)
        inner = x[:, self.row] * x[:, self.col]
        scores = F.relu(self.attention(inner))
        scores = F.softmax(self.projection(scores), dim=1)
        scores = F.dropout(scores, p=self.dropouts[0])  # fault
        out = torch.sum(scores * inner, dim=1)
        out = F.dropout(out, p=self.dropouts[1])  # fault
        return self.fc(out)


model = AFM()
inputs = torch.randint(0, 100, (4, 6))
""",
        swaps=(
            ("p=self.dropouts[0])", "p=self.dropouts[0], training=self.training)"),
            ("p=self.dropouts[1])", "p=self.dropouts[1], training=self.training)"),
        ),
    ),
    Case(
        id="DR04",
        status="fix",
        mode="R",
        codes=("ND318",),
        how="fused attention gets its dropout probability whether it trains or not",
        text="""
class FastAttention(nn.Module):
    def __init__(self, dim=64, heads=4, attention_dropout=0.1):
        super().__init__()
        self.heads, self.dropout_p = heads, attention_dropout
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(dim, dim) for _ in range(3))
        self.out_proj = nn.Linear(dim, dim)

    def split(self, x):
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x):
        q, k, v = self.split(self.q_proj(x)), self.split(self.k_proj(x)), self.split(self.v_proj(x))
        out = F.scaled_dot_product_attention(q, k, v, dropout_p=self.dropout_p)  # fault
        return self.out_proj(out.transpose(1, 2).flatten(2))


model = FastAttention()
inputs = torch.randn(2, 9, 64)
""",
        swaps=(("dropout_p=self.dropout_p)", "dropout_p=self.dropout_p if self.training else 0.0)"),),
    ),
    Case(
        id="DR-x1",
        status="own",
        codes=("ND318",),
        how="nn.Dropout built in forward",
        text="""
class Clf(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(24, 48), nn.Linear(48, 3)

    def forward(self, x):
        x = torch.relu(self.fc1(x))
        x = nn.Dropout(0.5)(x)  # fault
        return self.fc2(x)


model = Clf()
inputs = torch.randn(4, 24)
""",
        swaps=(("nn.Dropout(0.5)(x)", "F.dropout(x, 0.5, self.training)"),),
    ),
]
