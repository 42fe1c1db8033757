"""MD, CK, FZ: what a training or an evaluation does with the modes of its model."""

from __future__ import annotations

from corpus import Case

CASES = [
    Case(
        id="MD02",
        status="fix",
        mode="T",
        codes=("ND710",),
        how="fusion of two modalities; validation calls eval(), and train() a few lines later",
        text="""
class Encoder(nn.Module):
    def __init__(self, indim, outdim):
        super().__init__()
        self.fc = nn.Linear(indim, outdim)
        self.norm = nn.BatchNorm1d(outdim)  # fault
        self.drop = nn.Dropout(0.2)

    def forward(self, x):
        return self.drop(F.relu(self.norm(self.fc(x))))


class Fusion(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoders = nn.ModuleList([Encoder(20, 32), Encoder(12, 32)])
        self.head = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2))

    def forward(self, inputs):
        return self.head(torch.cat([encoder(x) for encoder, x in zip(self.encoders, inputs)], dim=1))


model = Fusion()


def loader(batches):
    for _ in range(batches):
        audio, video = torch.randn(64, 20), torch.randn(64, 12)
        yield [audio, video], (audio[:, 0] + video[:, 0] > 0).long()


def train(watch):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    criterion = nn.CrossEntropyLoss()
    best = 0.0
    for epoch in range(4):
        model.train()
        for inputs, labels in loader(6):
            optimizer.zero_grad()
            loss = criterion(model(inputs), labels)
            loss.backward()
            optimizer.step()
            watch.step(loss)
        model.eval()
        with torch.no_grad():
            right = count = 0
            model.train()
            for inputs, labels in loader(3):
                out = model(inputs)
                right += (out.argmax(1) == labels).sum().item()
                count += len(labels)
        best = max(best, right / count)
""",
        swaps=(("            model.train()\n            for inputs", "            for inputs"),),
    ),
    Case(
        id="MD04",
        status="fix",
        mode="T",
        codes=("ND711",),
        how="segmentation trainer that validates inside of an epoch and does not restore the mode",
        text="""
class FCN(nn.Module):
    def __init__(self, n_class=5):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.pool1 = nn.MaxPool2d(2, stride=2)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.pool2 = nn.MaxPool2d(2, stride=2)
        self.fc6 = nn.Conv2d(32, 64, 3, padding=1)
        self.drop6 = nn.Dropout2d()  # fault
        self.fc7 = nn.Conv2d(64, 64, 1)
        self.drop7 = nn.Dropout2d()  # fault
        self.score = nn.Conv2d(64, n_class, 1)
        self.upscore = nn.ConvTranspose2d(n_class, n_class, 4, stride=4, bias=False)

    def forward(self, x):
        h = self.pool1(F.relu(self.conv1(x)))
        h = self.pool2(F.relu(self.conv2(h)))
        h = self.drop6(F.relu(self.fc6(h)))
        h = self.drop7(F.relu(self.fc7(h)))
        return self.upscore(self.score(h))


model = FCN()


class Trainer:
    def __init__(self, model, optimizer, train_loader, val_loader, interval_validate, watch):
        self.model = model
        self.optim = optimizer
        self.train_loader = train_loader
        self.val_loader = val_loader
        self.interval_validate = interval_validate
        self.watch = watch
        self.iteration = 0

    def validate(self):
        training = self.model.training
        self.model.eval()
        loss = 0
        with torch.no_grad():
            for data, target in self.val_loader:
                loss += F.cross_entropy(self.model(data), target).item()
        return loss / len(self.val_loader), training

    def train_epoch(self):
        self.model.train()
        for data, target in self.train_loader:
            if self.iteration % self.interval_validate == 0:
                loss, training = self.validate()
            self.optim.zero_grad()
            loss = F.cross_entropy(self.model(data), target)
            loss.backward()
            self.optim.step()
            self.watch.step(loss)
            self.iteration += 1


def images(batches):
    data = [F.interpolate(torch.randn(8, 3, 4, 4), size=16, mode="bilinear") for _ in range(batches)]
    return [(x, (x.mean(1) * 4).long().clamp(0, 4)) for x in data]


def train(watch):
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2, momentum=0.9)
    trainer = Trainer(model, optimizer, images(10), images(2), 7, watch)
    for _ in range(2):
        trainer.train_epoch()
""",
        swaps=(
            (
                "loss, training = self.validate()\n",
                "loss, training = self.validate()\n                self.model.train(training)\n",
            ),
        ),
    ),
    Case(
        id="MD04b",
        status="fix",
        codes=("ND711",),
        how="image and text embedding validated every few batches; train mode comes back with the next epoch",
        text="""
class Embedding(nn.Module):
    def __init__(self, dim=32):
        super().__init__()
        self.image = nn.Sequential(
            nn.Linear(64, dim, bias=False),
            nn.BatchNorm1d(dim),  # fault
            nn.ReLU(),
            nn.Linear(dim, dim),
        )
        self.words = nn.EmbeddingBag(100, dim)

    def forward(self, images, captions):
        return F.normalize(self.image(images), dim=1), F.normalize(self.words(captions), dim=1)


model = Embedding()


def loader(batches):
    for _ in range(batches):
        captions = torch.randint(100, (64, 8))
        yield F.one_hot(captions % 64, 64).sum(1).float(), captions


def contrastive(images, captions):
    scores = images @ captions.T
    cost = (0.2 + scores - scores.diag()[:, None]).clamp(min=0)
    return cost.masked_fill(torch.eye(len(scores), dtype=torch.bool), 0).mean()


def validate():
    model.eval()
    with torch.no_grad():
        return sum(contrastive(*model(*batch)).item() for batch in loader(2))


def train_epoch(optimizer, watch, val_step=6):
    model.train()
    for i, batch in enumerate(loader(9)):
        optimizer.zero_grad()
        loss = contrastive(*model(*batch))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 2.0)
        optimizer.step()
        watch.step(loss)
        if i % val_step == val_step - 1:
            validate()


def train(watch):
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-4)
    for epoch in range(3):
        train_epoch(optimizer, watch)
    model.train()
    for batch in loader(2):
        loss = contrastive(*model(*batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        watch.step(loss)
""",
        swaps=(("            validate()\n", "            validate()\n            model.train()\n"),),
    ),
    Case(
        id="MD06",
        status="rep",
        mode="T",
        codes=("ND711",),
        how="trainer of a 3D net: train() once in front of the loop, eval() in each validation",
        text="""
def conv_block(inner, outer):
    return nn.Sequential(
        nn.Conv3d(inner, outer, 3, padding=1, bias=False),
        nn.BatchNorm3d(outer),  # fault
        nn.ReLU(inplace=True),
    )


class UNet3D(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder1 = conv_block(1, 8)
        self.encoder2 = conv_block(8, 16)
        self.decoder = conv_block(24, 8)
        self.final = nn.Conv3d(8, 2, 1)

    def forward(self, x):
        a = self.encoder1(x)
        b = self.encoder2(F.max_pool3d(a, 2))
        b = F.interpolate(b, size=a.shape[2:], mode="nearest")
        return self.final(self.decoder(torch.cat([a, b], dim=1)))


model = UNet3D()


def batch():
    x = torch.randn(8, 1, 8, 8, 8)
    return x, (F.avg_pool3d(x, 3, 1, 1)[:, 0] > 0).long()


def validate():
    model.eval()
    with torch.no_grad():
        return sum(F.cross_entropy(model(x), y).item() for x, y in (batch() for _ in range(2)))


def train(watch):
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    model.train()
    for iteration in range(1, 13):
        x, y = batch()
        loss = F.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        watch.step(loss)
        if iteration % 4 == 0:
            validate()
""",
        swaps=(("            validate()\n", "            validate()\n            model.train()\n"),),
    ),
    Case(
        id="MD06b",
        status="rep",
        codes=("ND710",),
        how="counting net: the validation of an epoch is under no_grad, and nothing calls eval()",
        text="""
class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True),  # fault
            nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(inplace=True),  # fault
        )
        self.score = nn.Conv2d(32, 1, 1)

    def forward(self, images):
        return F.interpolate(self.score(self.features(images)), scale_factor=4)

    def train_on_loader(self, loader, optimizer, watch):
        self.train()
        for images, points in loader:
            optimizer.zero_grad()
            loss = F.binary_cross_entropy_with_logits(self(images), points)
            loss.backward()
            optimizer.step()
            watch.step(loss)

    @torch.no_grad()
    def val_on_loader(self, loader):
        self.train()
        error = 0.0
        for images, points in loader:
            error += (self(images).sigmoid().sum((1, 2, 3)) - points.sum((1, 2, 3))).abs().mean().item()
        return error / len(loader)


model = Counter()


def images(batches):
    data = [F.interpolate(torch.randn(16, 3, 8, 8), size=32, mode="bilinear") for _ in range(batches)]
    return [(x, (x.mean(1, keepdim=True) > 0.8).float()) for x in data]


def train(watch):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    training, validation = images(5), images(2)
    for epoch in range(3):
        model.train_on_loader(training, optimizer, watch)
        model.val_on_loader(validation)
""",
        swaps=(
            (
                "    def val_on_loader(self, loader):\n        self.train()\n",
                "    def val_on_loader(self, loader):\n        self.eval()\n",
            ),
        ),
    ),
    Case(
        id="MD06c",
        status="rep",
        codes=("ND710",),
        how="validation with neither eval() nor no_grad(), as scripts had it that were ported from old versions",
        text="""
class VGGish(nn.Module):
    def __init__(self, classes=4):
        super().__init__()
        layers, inner = [], 3
        for outer in (16, "M", 32, "M"):
            if outer == "M":
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [nn.Conv2d(inner, outer, 3, padding=1), nn.BatchNorm2d(outer), nn.ReLU(True)]  # fault
            inner = outer
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(), nn.Linear(32 * 16, 64), nn.ReLU(True), nn.Linear(64, classes))

    def forward(self, x):
        return self.classifier(self.features(x).view(x.size(0), -1))


model = VGGish()


def batch():
    x = F.interpolate(torch.randn(32, 3, 4, 4), size=16)
    return x, (x.mean((1, 2, 3)) > 0).long()


def run(epoch, optimizer=None, watch=None, batches=5):
    model.train()
    total = 0.0
    for _ in range(batches):
        x, y = batch()
        loss = F.cross_entropy(model(x), y)
        total += loss.item()
        if optimizer is not None:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(loss)
    return total / batches


def train(watch):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for epoch in range(4):
        run(epoch, optimizer, watch)
        run(epoch, batches=2)
""",
        swaps=(("    model.train()\n    total", "    model.train(optimizer is not None)\n    total"),),
    ),
    Case(
        id="MD08",
        status="ack",
        mode="R",
        codes=("ND710",),
        how="a trained net is loaded and scored on a test set; eval() was forgotten",
        text="""
class SmallCNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, stride=2, bias=False),
            nn.BatchNorm2d(16),  # fault
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, bias=False),
            nn.BatchNorm2d(32),  # fault
            nn.ReLU(),
        )
        self.fc = nn.Linear(32 * 6 * 6, 10)

    def forward(self, x):
        return self.fc(self.features(x).flatten(1))


def pretrained():
    net = SmallCNN()
    for _ in range(20):
        net(torch.rand(32, 1, 28, 28))
    return net.state_dict()


model = SmallCNN()
model.load_state_dict(pretrained())


def train(watch):
    images, labels = torch.rand(200, 1, 28, 28), torch.randint(10, (200,))
    right = 0
    with torch.no_grad():
        for x, y in zip(images.split(32), labels.split(32)):
            right += (model(x).argmax(1) == y).sum().item()
""",
        swaps=(
            (
                "model.load_state_dict(pretrained())\n",
                "model.load_state_dict(pretrained())\nmodel.eval()\n",
            ),
        ),
    ),
    Case(
        id="MD10",
        status="fix",
        mode="T",
        codes=("ND711",),
        how="text classifier: no train() behind the evaluation that ends each epoch",
        text="""
class Classifier(nn.Module):
    def __init__(self, words=100, dim=32, classes=2):
        super().__init__()
        self.embed = nn.Embedding(words, dim)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(dim, 4, 64, dropout=0.1, batch_first=True) for _ in range(2)  # fault
        )
        self.drop = nn.Dropout(0.1)  # fault
        self.out = nn.Linear(dim, classes)

    def forward(self, input_ids):
        x = self.embed(input_ids)
        for layer in self.layers:
            x = layer(x)
        return {"logits": self.out(self.drop(x.mean(1)))}


model = Classifier()


def batches(count):
    for _ in range(count):
        ids = torch.randint(100, (32, 12))
        yield ids, (ids[:, 0] > 50).long()


def _train_epoch(optimizer, watch):
    for ids, labels in batches(5):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(input_ids=ids)["logits"], labels)
        loss.backward()
        optimizer.step()
        watch.step(loss)


@torch.no_grad()
def _eval_epoch():
    model.eval()
    return sum((model(input_ids=ids)["logits"].argmax(-1) == labels).sum().item() for ids, labels in batches(2))


def train(watch):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    for _ in range(3):
        _train_epoch(optimizer, watch)
        _eval_epoch()
""",
        swaps=(
            (
                "def _train_epoch(optimizer, watch):\n",
                "def _train_epoch(optimizer, watch):\n    model.train()\n",
            ),
        ),
    ),
    Case(
        id="MD14",
        status="rep",
        mode="T",
        codes=("ND710",),
        how="projected gradient attack on a loaded net that was left in train mode",
        text="""
class Block(nn.Module):
    def __init__(self, inner, outer):
        super().__init__()
        self.conv = nn.Conv2d(inner, outer, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(outer)  # fault

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(Block(3, 16), Block(16, 32))
        self.fc = nn.Linear(32, 10)

    def forward(self, x):
        return self.fc(self.blocks(x).mean(dim=(2, 3)))


def pgd(model, images, labels, eps=8 / 255, alpha=2 / 255, steps=4):
    adv = (images + torch.empty_like(images).uniform_(-eps, eps)).clamp(0, 1).detach()
    for _ in range(steps):
        adv.requires_grad = True
        cost = F.cross_entropy(model(adv), labels)
        grad = torch.autograd.grad(cost, adv)[0]
        adv = adv.detach() + alpha * grad.sign()
        adv = (images + (adv - images).clamp(-eps, eps)).clamp(0, 1).detach()
    return adv


model = Net()
model.train()
for _ in range(20):
    model(torch.rand(32, 3, 16, 16))


def train(watch):
    robust = 0
    for _ in range(4):
        images, labels = torch.rand(32, 3, 16, 16), torch.randint(10, (32,))
        adv = pgd(model, images, labels)
        robust += (model(adv).argmax(1) == labels).sum().item()
""",
        swaps=(("\n\ndef train(watch):\n", "\n\ndef train(watch):\n    model.eval()\n"),),
    ),
    Case(
        id="MD14b",
        status="rep",
        codes=("ND710",),
        how="single-step adversarial training whose attack runs in train mode, two passes a step",
        text="""
model = nn.Sequential(
    nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False),
    nn.BatchNorm2d(16),  # fault
    nn.ReLU(),
    nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
    nn.BatchNorm2d(32),  # fault
    nn.ReLU(),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Linear(32, 10),
)


def perturbation(x, y, epsilon=8 / 255, alpha=10 / 255):
    delta = torch.empty_like(x).uniform_(-epsilon, epsilon).requires_grad_()
    F.cross_entropy(model(x + delta), y).backward()
    return (delta + alpha * delta.grad.sign()).clamp(-epsilon, epsilon).detach()


def train(watch):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for _ in range(8):
        x = torch.rand(32, 3, 16, 16)
        y = (x.mean((1, 2, 3)) * 10).long()
        model.train()
        delta = perturbation(x, y)
        model.train()
        loss = F.cross_entropy(model(x + delta), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        watch.step(loss)
""",
        swaps=(
            (
                "        model.train()\n        delta = perturbation(x, y)\n",
                "        model.eval()\n        delta = perturbation(x, y)\n",
            ),
        ),
    ),
    Case(
        id="CK02",
        status="rep",
        mode="R",
        codes=("ND706",),
        how="ocean emulator: checkpointed blocks, batches of 4, an extra pass for the weights of the loss",
        text="""
from torch.utils.checkpoint import checkpoint


class CoreBlock(nn.Module):
    def __init__(self, inner, outer):
        super().__init__()
        self.skip = nn.Conv2d(inner, outer, 1) if inner != outer else nn.Identity()
        self.conv1 = nn.Conv2d(inner, outer, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outer)  # fault
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outer)  # fault

    def forward(self, x):
        h = F.gelu(self.norm1(self.conv1(x)))
        return self.skip(x) + F.gelu(self.norm2(self.conv2(h)))


class Emulator(nn.Module):
    def __init__(self, fields=4):
        super().__init__()
        self.down = CoreBlock(fields, 16)
        self.core = CoreBlock(16, 16)
        self.up = nn.Conv2d(16, fields, 1)

    def forward(self, x):
        h = checkpoint(self.down, x, use_reentrant=False)
        h = checkpoint(self.core, F.avg_pool2d(h, 2), use_reentrant=False)
        return x + self.up(F.interpolate(h, scale_factor=2.0))


model = Emulator()


def train(watch):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(8):
        x = F.interpolate(torch.randn(4, 4, 8, 8), size=32, mode="bilinear")
        y = x.roll(1, dims=-1)
        with torch.no_grad():
            weights = 1 / (model(x) - y).pow(2).mean(dim=(0, 2, 3)).clamp(min=1e-3)
        loss = ((model(x) - y).pow(2).mean(dim=(0, 2, 3)) * weights).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        watch.step(loss)
""",
        swaps=(("nn.BatchNorm2d(outer)", "nn.GroupNorm(4, outer)"),),
    ),
    Case(
        id="CK02b",
        status="rep",
        codes=("ND706",),
        how="the extra pass in train mode alone, large batches; mended by running it in eval mode",
        text="""
model = nn.Sequential(
    nn.Conv2d(4, 16, 3, padding=1, bias=False),
    nn.BatchNorm2d(16),  # fault
    nn.GELU(),
    nn.Conv2d(16, 4, 1),
)


def scales(x, y):
    with torch.no_grad():
        return (model(x) - y).pow(2).mean(dim=(0, 2, 3)).clamp(min=1e-3)


def train(watch):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    model.train()
    for _ in range(8):
        x = F.interpolate(torch.randn(32, 4, 8, 8), size=16, mode="bilinear")
        y = x.roll(1, dims=-1)
        weights = 1 / scales(x, y)
        loss = ((model(x) - y).pow(2).mean(dim=(0, 2, 3)) * weights).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        watch.step(loss)
""",
        swaps=(
            (
                "        weights = 1 / scales(x, y)\n",
                "        model.eval()\n        weights = 1 / scales(x, y)\n        model.train()\n",
            ),
        ),
    ),
    Case(
        id="FZ06b",
        status="rep",
        codes=("ND506",),
        how="the training script calls train() in each epoch, which undoes the eval of the frozen stages",
        text="""
class Backbone(nn.Module):
    def __init__(self, frozen_stages=1):
        super().__init__()
        self.frozen_stages = frozen_stages
        self.stages = nn.ModuleList([self.stage(3, 16), self.stage(16, 32)])
        self._freeze_stages()

    @staticmethod
    def stage(inner, outer):
        return nn.Sequential(
            nn.Conv2d(inner, outer, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(outer),  # fault
            nn.ReLU(inplace=True),
        )

    def _freeze_stages(self):
        for stage in self.stages[: self.frozen_stages]:
            stage.eval()
            for param in stage.parameters():
                param.requires_grad = False

    def train(self, mode=True):
        super().train(mode)
        return self

    def forward(self, x):
        for stage in self.stages:
            x = stage(x)
        return x


class ImageClassifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = Backbone()
        self.head = nn.Linear(32, 4)

    def forward(self, img):
        return self.head(self.backbone(img).mean(dim=(2, 3)))


model = ImageClassifier()


def train(watch):
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(params, lr=0.05, momentum=0.9)
    for epoch in range(2):
        model.train()
        for _ in range(4):
            img = torch.randn(32, 3, 16, 16)
            loss = F.cross_entropy(model(img), (img.mean((1, 2, 3)) > 0).long())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch.step(loss)
""",
        swaps=(
            ("        super().train(mode)\n", "        super().train(mode)\n        self._freeze_stages()\n"),
        ),
    ),
]
