"""DS, SG, NL: what the loss gets is not what it expects."""

from __future__ import annotations

from corpus import Case

CASES = [
    Case(
        id="DS02",
        status="ack",
        mode="ST",
        codes=("ND310",),
        how="GAN discriminator with an auxiliary class head; a training loop with F.cross_entropy",
        text="""
class Discriminator(nn.Module):
    def __init__(self, classes=10):
        super().__init__()

        def block(cin, cout, bn=True):
            layers = [nn.Conv2d(cin, cout, 3, 2, 1, bias=not bn)]
            if bn:
                layers.append(nn.BatchNorm2d(cout))
            return layers + [nn.LeakyReLU(0.2, inplace=True), nn.Dropout2d(0.25)]

        self.features = nn.Sequential(*block(1, 16, False), *block(16, 32))
        self.adv_layer = nn.Sequential(nn.Linear(32 * 7 * 7, 1), nn.Sigmoid())
        self.aux_layer = nn.Sequential(nn.Linear(32 * 7 * 7, classes), nn.Softmax(dim=1))  # fault

    def forward(self, img):
        flat = self.features(img).view(img.size(0), -1)
        return self.adv_layer(flat), self.aux_layer(flat)


discriminator = Discriminator()
inputs = torch.randn(4, 1, 28, 28)
loader = [(torch.randn(4, 1, 28, 28), torch.randint(0, 10, (4,))) for _ in range(2)]
opt = torch.optim.Adam(discriminator.parameters(), lr=2e-4)
for images, labels in loader:
    opt.zero_grad()
    validity, label = discriminator(images)
    d_loss = F.binary_cross_entropy(validity, torch.ones(4, 1)) + F.cross_entropy(label, labels)
    d_loss.backward()
    opt.step()
""",
        swaps=((", nn.Softmax(dim=1))", ")"),),
    ),
    Case(
        id="DS02b",
        status="ack",
        codes=("ND310",),
        how="the same head in a module with its own training_step",
        text="""
class ACGAN(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.LeakyReLU(0.2))
        self.aux = nn.Linear(128, 10)
        self.prob = nn.Softmax(dim=1)  # fault

    def forward(self, img):
        return self.prob(self.aux(self.body(img)))  # fault

    def training_step(self, batch, batch_idx):
        x, y = batch
        y_hat = self(x)
        loss = F.cross_entropy(y_hat, y)  # fault
        return {"loss": loss}


model = ACGAN()
inputs = torch.randn(4, 1, 28, 28)
""",
        swaps=(
            ("self.prob(self.aux(self.body(img)))", "self.aux(self.body(img))"),
            ("        self.prob = nn.Softmax(dim=1)\n", ""),
        ),
    ),
    Case(
        id="DS04",
        status="fix",
        mode="T",
        codes=("ND310",),
        how="training takes logits, validation softmax(logits); both in one script",
        text="""
class PairClassifier(nn.Module):
    def __init__(self, vocab=500, dim=64, classes=4):
        super().__init__()
        self.emb = nn.Embedding(vocab, dim)
        self.norm = nn.LayerNorm(2 * dim)
        self.out = nn.Linear(2 * dim, classes)

    def forward(self, first, second):
        pair = torch.cat([self.emb(first).mean(1), self.emb(second).mean(1)], dim=-1)
        return self.out(self.norm(pair))


model = PairClassifier()
inputs = (torch.randint(0, 500, (4, 12)), torch.randint(0, 500, (4, 12)))
criterion = nn.CrossEntropyLoss()


def validate(loader):
    model.eval()
    total = 0.0
    with torch.no_grad():
        for a, b, y in loader:
            logits = model(a, b)
            scores = torch.softmax(logits, dim=1)  # fault
            total += criterion(scores, y).item()  # fault
    return total


def train(loader, optimizer):
    model.train()
    for a, b, y in loader:
        loss = criterion(model(a, b), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
""",
        swaps=(("criterion(scores, y)", "criterion(logits, y)"),),
    ),
    Case(
        id="DS06",
        status="ack",
        mode="T",
        codes=("ND310",),
        how="similarities of one query with five documents through F.softmax; loss is handed over",
        text="""
class DSSM(nn.Module):
    def __init__(self, letters=90):
        super().__init__()
        self.conv = nn.Conv1d(letters, 64, 3, padding=1)
        self.sem = nn.Linear(64, 32)
        self.gamma = nn.Parameter(torch.ones(1))

    def encode(self, x):
        h = torch.tanh(self.conv(x))
        h = F.max_pool1d(h, h.size(-1)).squeeze(-1)
        return torch.tanh(self.sem(h))

    def forward(self, query, docs):
        q = self.encode(query)
        sims = [F.cosine_similarity(q, self.encode(docs[:, i]), dim=1) for i in range(docs.size(1))]
        sim = torch.stack(sims, dim=1) * self.gamma
        return F.softmax(sim, dim=1)  # fault


model = DSSM()
inputs = (torch.randn(4, 90, 12), torch.randn(4, 5, 90, 12))
loss = nn.CrossEntropyLoss()
""",
        swaps=(("return F.softmax(sim, dim=1)", "return sim"),),
        given=("loss",),
    ),
    Case(
        id="DS08",
        status="rep",
        mode="ST",
        codes=("ND310",),
        how="CNN on sensor windows whose forward ends in F.softmax; loop in a function",
        text="""
class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(9, 32, (1, 9)), nn.ReLU(), nn.MaxPool2d((1, 2), 2))
        self.conv2 = nn.Sequential(nn.Conv2d(32, 64, (1, 9)), nn.ReLU(), nn.MaxPool2d((1, 2), 2))
        self.fc1 = nn.Sequential(nn.Linear(64 * 26, 100), nn.ReLU())
        self.fc2 = nn.Linear(100, 6)

    def forward(self, x):
        out = self.conv2(self.conv1(x))
        out = out.reshape(-1, 64 * 26)
        out = self.fc2(self.fc1(out))
        out = F.softmax(out, dim=1)  # fault
        return out


def train(model, optimizer, loader):
    criterion = nn.CrossEntropyLoss()
    for sample, target in loader:
        output = model(sample)
        loss = criterion(output, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


inputs = torch.randn(4, 9, 1, 128)
if __name__ == "__main__":
    net = Network()
    batches = [(torch.randn(4, 9, 1, 128), torch.randint(0, 6, (4,)))]
    train(net, torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9), batches)
""",
        swaps=(("        out = F.softmax(out, dim=1)\n", ""),),
    ),
    Case(
        id="DS10",
        status="PR",
        mode="T",
        codes=("ND310",),
        how="graph network over token nodes, softmax in the model; loss is handed over",
        text="""
class GraphQA(nn.Module):
    def __init__(self, dim=48, answers=8):
        super().__init__()
        self.gc1 = nn.Linear(dim, 32)
        self.gc2 = nn.Linear(32, 32)
        self.drop = nn.Dropout(0.3)
        self.score = nn.Linear(32, answers)
        self.softmax = nn.Softmax(dim=-1)  # fault

    def forward(self, nodes, adjacency):
        h = torch.relu(torch.bmm(adjacency, self.gc1(nodes)))
        h = self.drop(torch.relu(torch.bmm(adjacency, self.gc2(h))))
        return self.softmax(self.score(h.mean(dim=1)))  # fault


model = GraphQA()
inputs = (torch.randn(3, 20, 48), torch.rand(3, 20, 20))
loss = nn.CrossEntropyLoss(label_smoothing=0.1)
""",
        swaps=(
            ("self.softmax(self.score(h.mean(dim=1)))", "self.score(h.mean(dim=1))"),
            ("        self.softmax = nn.Softmax(dim=-1)\n", ""),
        ),
        given=("loss",),
    ),
    Case(
        id="DS12",
        status="fix",
        mode="ST",
        codes=("ND310",),
        how="CIFAR net with a Softmax as its last layer; loss is handed over",
        text="""
model = nn.Sequential(
    nn.Conv2d(3, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(),
    nn.Linear(64 * 8 * 8, 256), nn.ReLU(),
    nn.Linear(256, 10),
    nn.Softmax(dim=1),  # fault
)
inputs = torch.randn(4, 3, 32, 32)
loss = nn.CrossEntropyLoss()
""",
        swaps=(("    nn.Softmax(dim=1),\n", ""),),
        given=("loss",),
    ),
    Case(
        id="DS12b",
        status="fix",
        codes=("ND310",),
        how="model returns a dict, probabilities by a method call; the source applies the loss",
        text="""
class Cifar(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.classifier = nn.Linear(16, 10)

    def forward(self, x):
        x = torch.flatten(self.backbone(x), 1)
        return self.classifier(x).softmax(dim=-1)  # fault


net = Cifar()
inputs = torch.randn(4, 3, 32, 32)
criterion = nn.CrossEntropyLoss()
opt = torch.optim.AdamW(net.parameters(), lr=1e-3)
for _ in range(2):
    x, y = torch.randn(4, 3, 32, 32), torch.randint(0, 10, (4,))
    loss = criterion(net(x), y)
    loss.backward()
    opt.step()
""",
        swaps=((".softmax(dim=-1)", ""),),
    ),
    Case(
        id="DS-x1",
        status="own",
        codes=("ND310",),
        how="segmentation head with Softmax2d in front of cross entropy over pixels; handed over",
        text="""
class Segmenter(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.Conv2d(3, 16, 3, padding=1)
        self.dec = nn.Conv2d(16, 5, 1)
        self.act = nn.Softmax2d()  # fault

    def forward(self, x):
        return self.act(self.dec(F.gelu(self.enc(x))))  # fault


model = Segmenter()
inputs = torch.randn(2, 3, 16, 16)


def loss(output, labels):
    return F.cross_entropy(output, labels)


labels = torch.randint(0, 5, (2, 16, 16))
""",
        swaps=(
            ("self.act(self.dec(F.gelu(self.enc(x))))", "self.dec(F.gelu(self.enc(x)))"),
            ("        self.act = nn.Softmax2d()\n", ""),
        ),
        given=("loss", "labels"),
    ),
    Case(
        id="SG02",
        status="ack",
        mode="ST",
        codes=("ND311",),
        how="YOLO head: sigmoid on confidence and classes before returning; loss BCEWithLogits handed over",
        text="""
class YoloHead(nn.Module):
    def __init__(self, anchors=3, classes=4):
        super().__init__()
        self.na, self.nc = anchors, classes
        self.conv = nn.Conv2d(32, anchors * (5 + classes), 1)

    def forward(self, x):
        b, _, h, w = x.shape
        p = self.conv(x).view(b, self.na, 5 + self.nc, h, w).permute(0, 3, 4, 1, 2)
        xy, wh = torch.sigmoid(p[..., 0:2]), torch.exp(p[..., 2:4])
        conf_cls = torch.sigmoid(p[..., 4:])  # fault
        return xy, wh, conf_cls


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), nn.Mish())
        self.head = YoloHead()

    def forward(self, x):
        return self.head(self.stem(x))


model = Detector()
inputs = torch.randn(2, 3, 32, 32)
labels = torch.zeros(2, 16, 16, 3, 5)


def loss(output, labels):
    return nn.BCEWithLogitsLoss()(output[2], labels)
""",
        swaps=(("torch.sigmoid(p[..., 4:])", "p[..., 4:]"),),
        given=("loss", "labels"),
    ),
    Case(
        id="SG02b",
        status="ack",
        codes=("ND311",),
        how="the same in the training loop of a script",
        text="""
class Head(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.obj = nn.Conv2d(16, 3, 1)

    def forward(self, x):
        conf = self.obj(F.leaky_relu(self.stem(x), 0.1))
        return conf.sigmoid()  # fault


net = Head()
bce = nn.BCEWithLogitsLoss(reduction="sum")
inputs = torch.randn(2, 3, 32, 32)
opt = torch.optim.SGD(net.parameters(), lr=1e-3)
for step in range(2):
    pred = net(torch.randn(2, 3, 32, 32))
    loss = bce(pred, torch.zeros_like(pred))
    loss.backward()
    opt.step()
""",
        swaps=(("conf.sigmoid()", "conf"),),
    ),
    Case(
        id="SG04",
        status="PR",
        mode="ST",
        codes=("ND311",),
        how="pointwise recommender with the loss chosen in a fit method of its own",
        text="""
class PointMF(nn.Module):
    def __init__(self, users=50, items=80, dim=16):
        super().__init__()
        self.embed_user = nn.Embedding(users, dim)
        self.embed_item = nn.Embedding(items, dim)
        nn.init.normal_(self.embed_user.weight, std=0.01)
        nn.init.normal_(self.embed_item.weight, std=0.01)

    def forward(self, user, item):
        pred = (self.embed_user(user) * self.embed_item(item)).sum(dim=-1)
        return torch.sigmoid(pred)  # fault

    def fit(self, loader):
        optimizer = torch.optim.Adam(self.parameters(), lr=0.01)
        criterion = nn.BCEWithLogitsLoss(reduction="sum")
        for user, item, label in loader:
            self.zero_grad()
            prediction = self(user, item)
            loss = criterion(prediction, label)  # fault
            loss.backward()
            optimizer.step()


model = PointMF()
inputs = (torch.randint(0, 50, (8,)), torch.randint(0, 80, (8,)))
""",
        swaps=(("return torch.sigmoid(pred)", "return pred"),),
    ),
    Case(
        id="SG06",
        status="rep",
        mode="ST",
        codes=("ND311",),
        how="logistic model with a sigmoid output; loss is handed over",
        text="""
class MLP(nn.Module):
    def __init__(self, features=30):
        super().__init__()
        self.fc1 = nn.Linear(features, 64)
        self.fc2 = nn.Linear(64, 1)
        self.sigmoid = nn.Sigmoid()  # fault

    def forward(self, x):
        x = torch.relu(self.fc1(x))
        return self.sigmoid(self.fc2(x))  # fault


model = MLP()
inputs = torch.randn(8, 30)
loss = nn.BCEWithLogitsLoss()
""",
        swaps=(("self.sigmoid(self.fc2(x))", "self.fc2(x)"), ("        self.sigmoid = nn.Sigmoid()\n", "")),
        given=("loss",),
    ),
    Case(
        id="SG08",
        status="ack",
        codes=("ND302",),
        how="graph layer: the gate is stored as sigmoid(e) and squashed again where it is used",
        text="""
class EdgeGateLayer(nn.Module):
    def __init__(self, dim=32):
        super().__init__()
        self.q, self.k, self.v = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.e = nn.Linear(dim, dim)

    def edge_gate(self, edges):
        return torch.sigmoid(self.e(edges))  # fault

    def forward(self, nodes, edges):
        gate = self.edge_gate(edges)
        score = self.q(nodes).unsqueeze(2) * self.k(nodes).unsqueeze(1) / nodes.shape[-1] ** 0.5
        score = torch.sigmoid(gate) * score  # fault
        weight = torch.softmax(score.sum(-1), dim=-1)
        return torch.bmm(weight, self.v(nodes))


model = EdgeGateLayer()
inputs = (torch.randn(2, 6, 32), torch.randn(2, 6, 6, 32))
""",
        swaps=(("score = torch.sigmoid(gate) * score", "score = gate * score"),),
    ),
    Case(
        id="SG10",
        status="thin",
        mode="ST",
        codes=("ND302", "ND311"),
        how="change map through a sigmoid layer and F.sigmoid before BCE; loss is handed over",
        text="""
class ChangeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.enc = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())
        self.out = nn.Sequential(nn.Conv2d(32, 1, 1), nn.Sigmoid())  # fault

    def forward(self, before, after):
        both = torch.cat([self.enc(before), self.enc(after)], dim=1)
        change = self.out(both)
        return torch.sigmoid(change)  # fault


model = ChangeNet()
inputs = (torch.randn(2, 3, 16, 16), torch.randn(2, 3, 16, 16))
loss = nn.BCELoss()
""",
        swaps=(("return torch.sigmoid(change)", "return change"),),
        given=("loss",),
    ),
    Case(
        id="SG-x1",
        status="own",
        codes=("ND311",),
        how="multi-label tagger: hard gate of tags by sigmoid in the model, F.binary_cross_entropy_with_logits",
        text="""
class Tagger(nn.Module):
    def __init__(self, tags=12):
        super().__init__()
        self.rnn = nn.GRU(20, 32, batch_first=True, bidirectional=True)
        self.head = nn.Linear(64, tags)

    def forward(self, x):
        out, _ = self.rnn(x)
        return F.sigmoid(self.head(out[:, -1]))  # fault


def step(model, batch, target):
    logits = model(batch)
    return F.binary_cross_entropy_with_logits(logits, target)


model = Tagger()
inputs = torch.randn(4, 9, 20)
total = step(model, inputs, torch.zeros(4, 12))
total.backward()
""",
        swaps=(("F.sigmoid(self.head(out[:, -1]))", "self.head(out[:, -1])"),),
    ),
    Case(
        id="NL02",
        status="rep",
        mode="T",
        codes=("ND312",),
        how="stock movement model, softmax probabilities into F.nll_loss in the training function",
        text="""
class Movement(nn.Module):
    def __init__(self, feat=12, hidden=32):
        super().__init__()
        self.gru = nn.GRU(feat, hidden, batch_first=True)
        self.bn = nn.LayerNorm(hidden)
        self.fc = nn.Linear(hidden, 2)

    def forward(self, prices):
        _, h = self.gru(prices)
        return F.softmax(self.fc(self.bn(h[-1])), dim=1)  # fault


model = Movement()
inputs = torch.randn(6, 5, 12)
optimizer = torch.optim.Adam(model.parameters(), lr=5e-4)


def train(prices, target):
    model.train()
    optimizer.zero_grad()
    output = model(prices)
    loss = F.nll_loss(output, target)  # fault
    loss.backward()
    optimizer.step()


train(inputs, torch.randint(0, 2, (6,)))
""",
        swaps=(("F.softmax(self.fc", "F.log_softmax(self.fc"),),
    ),
    Case(
        id="NL02b",
        status="rep",
        codes=("ND312",),
        how="Sequential that ends in Softmax; nn.NLLLoss handed over",
        text="""
model = nn.Sequential(
    nn.Linear(20, 64),
    nn.BatchNorm1d(64),
    nn.ReLU(),
    nn.Linear(64, 3),
    nn.Softmax(dim=-1),  # fault
)
inputs = torch.randn(8, 20)
loss = nn.NLLLoss()
""",
        swaps=(("nn.Softmax(dim=-1)", "nn.LogSoftmax(dim=-1)"),),
        given=("loss",),
    ),
    Case(
        id="NL-x1",
        status="own",
        codes=("ND312",),
        how="raw scores into NLLLoss",
        text="""
class Bag(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.EmbeddingBag(300, 32)
        self.top = nn.Linear(32, 5)  # fault

    def forward(self, tokens):
        return self.top(torch.relu(self.words(tokens)))  # fault


net = Bag()
inputs = torch.randint(0, 300, (4, 7))
criterion = nn.NLLLoss()
error = criterion(net(inputs), torch.randint(0, 5, (4,)))
error.backward()
""",
        swaps=(
            (
                "return self.top(torch.relu(self.words(tokens)))",
                "return self.top(torch.relu(self.words(tokens))).log_softmax(-1)",
            ),
        ),
    ),
    Case(
        id="AC06",
        status="PR",
        mode="ST",
        codes=("ND313",),
        how="digit classifier lesson: the last layer in F.relu, cross entropy in the loop",
        text="""
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.l1 = nn.Linear(784, 520)
        self.l2 = nn.Linear(520, 320)
        self.l3 = nn.Linear(320, 10)

    def forward(self, x):
        x = x.view(-1, 784)
        x = F.relu(self.l1(x))
        x = F.relu(self.l2(x))
        return F.relu(self.l3(x))  # fault


model = Net()
inputs = torch.randn(4, 1, 28, 28)
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.5)


def train(loader):
    for data, target in loader:
        optimizer.zero_grad()
        loss = criterion(model(data), target)
        loss.backward()
        optimizer.step()


train([(torch.randn(4, 1, 28, 28), torch.randint(0, 10, (4,)))])
""",
        swaps=(("return F.relu(self.l3(x))", "return self.l3(x)"),),
    ),
    Case(
        id="AC06b",
        status="PR",
        codes=("ND313",),
        how="Sequential that ends in ReLU; loss is handed over",
        text="""
model = nn.Sequential(
    nn.Flatten(),
    nn.Linear(64, 32),
    nn.ReLU(),
    nn.Linear(32, 10),
    nn.ReLU(),  # fault
)
inputs = torch.randn(4, 1, 8, 8)
loss = nn.CrossEntropyLoss()
""",
        swaps=(("    nn.Linear(32, 10),\n    nn.ReLU(),\n", "    nn.Linear(32, 10),\n"),),
        given=("loss",),
    ),
]
