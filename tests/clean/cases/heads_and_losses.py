"""Outputs, losses, generative and self-supervised models."""

from . import clean

CASES = [
    clean(
        "N42-sigmoid-beside-logits-loss",
        """
class Matcher(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, x):
        logits = self.net(x)
        return {"logits": logits, "scores": torch.sigmoid(logits)}


criterion = nn.BCEWithLogitsLoss()


def train_step(model, x, y):
    pred = model(x)
    return criterion(pred["logits"], y)


model = Matcher()
inputs = torch.randn(4, 16)
""",
    ),
    clean(
        "N42-sigmoid-in-decode",
        """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(16, 32), nn.Linear(32, 1)

    def forward(self, x):
        x = self.head(F.relu(self.body(x)))
        return x if self.training else x.sigmoid()


def main():
    model = Net()
    loss_fn = nn.BCEWithLogitsLoss()
    for _ in range(2):
        loss = loss_fn(model(torch.randn(4, 16)), torch.ones(4, 1))
        loss.backward()


model = Net()
inputs = torch.randn(4, 16)
""",
    ),
    clean(
        "N44-sigmoid-bceloss",
        """
class Discriminator(nn.Module):
    def __init__(self):
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(3, 16, 4, 2, 1, bias=False), nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(16, 32, 4, 2, 1, bias=False), nn.BatchNorm2d(32), nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(32, 1, 4, 1, 0, bias=False), nn.Sigmoid())

    def forward(self, x):
        return self.main(x).view(-1, 1).squeeze(1)


criterion = nn.BCELoss()


def step(net, real, label):
    return criterion(net(real), label)


model = Discriminator()
inputs = torch.randn(2, 3, 16, 16)
""",
    ),
    clean(
        "N46-relu-twice",
        """
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Sequential(nn.ReLU(), nn.Linear(16, 4)))
inputs = torch.randn(4, 8)
""",
    ),
    clean(
        "N50-zero-linear",
        """
model = nn.Linear(20, 5)
nn.init.zeros_(model.weight)
nn.init.zeros_(model.bias)
inputs = torch.randn(8, 20)


def fit(x, y):
    return F.cross_entropy(model(x), y)
""",
    ),
    clean(
        "N56-tacotron-prenet",
        """
class Prenet(nn.Module):
    def __init__(self, sizes=(20, 16, 16)):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b, bias=False) for a, b in zip(sizes[:-1], sizes[1:]))

    def forward(self, x):
        for linear in self.layers:
            x = F.dropout(F.relu(linear(x)), p=0.5, training=True)
        return x


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.prenet, self.rnn, self.out = Prenet(), nn.GRU(16, 24, batch_first=True), nn.Linear(24, 20)

    def forward(self, x):
        return self.out(self.rnn(self.prenet(x))[0])


model = Decoder()
inputs = torch.randn(2, 6, 20)
""",
    ),
    clean(
        "N58-simsiam-heads",
        """
class SimSiam(nn.Module):
    def __init__(self, dim=32):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 16, 3, 2, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
                                     nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.projector = nn.Sequential(nn.Linear(16, dim, bias=False), nn.BatchNorm1d(dim), nn.ReLU(inplace=True),
                                       nn.Linear(dim, dim, bias=False), nn.BatchNorm1d(dim, affine=False))
        self.predictor = nn.Sequential(nn.Linear(dim, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(inplace=True),
                                       nn.Linear(8, dim))

    def forward(self, x1, x2):
        z1, z2 = self.projector(self.encoder(x1)), self.projector(self.encoder(x2))
        return self.predictor(z1), self.predictor(z2), z1.detach(), z2.detach()


model = SimSiam()
inputs = (torch.randn(4, 3, 16, 16), torch.randn(4, 3, 16, 16))
""",
    ),
    clean(
        "N60-density-head",
        """
class NeRF(nn.Module):
    def __init__(self, w=32):
        super().__init__()
        self.pts = nn.ModuleList([nn.Linear(15, w)] + [nn.Linear(w, w) for _ in range(2)])
        self.alpha, self.feature, self.views, self.rgb = nn.Linear(w, 1), nn.Linear(w, w), nn.Linear(w + 9, 16), nn.Linear(16, 3)

    def forward(self, x, d):
        for layer in self.pts:
            x = F.relu(layer(x))
        sigma = F.relu(self.alpha(x))
        h = F.relu(self.views(torch.cat([F.relu(self.feature(x)), d], -1)))
        return torch.sigmoid(self.rgb(h)), sigma


model = NeRF()
inputs = (torch.randn(8, 15), torch.randn(8, 9))
""",
    ),
    clean(
        "N60-poisson",
        """
class CountNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))

    def forward(self, x):
        return F.softplus(self.net(x))


loss_fn = nn.PoissonNLLLoss(log_input=False)


def step(model, x, y):
    return loss_fn(model(x), y)


model = CountNet()
inputs = torch.randn(8, 10)
""",
    ),
    clean(
        "N64-single-logit",
        """
class Binary(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(10, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1))

    def forward(self, x):
        return torch.sigmoid(self.net(x))


def train(x, y):
    return F.binary_cross_entropy(model(x), y)


model = Binary()
inputs = torch.randn(8, 10)
""",
    ),
    clean(
        "N66-mnist",
        """
import argparse
import torch.optim as optim


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3, 1), nn.Conv2d(32, 64, 3, 1)
        self.dropout1, self.dropout2 = nn.Dropout(0.25), nn.Dropout(0.5)
        self.fc1, self.fc2 = nn.Linear(9216, 128), nn.Linear(128, 10)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = torch.flatten(self.dropout1(x), 1)
        x = self.fc2(self.dropout2(F.relu(self.fc1(x))))
        return F.log_softmax(x, dim=1)


def train(model, loader, optimizer):
    model.train()
    for data, target in loader:
        optimizer.zero_grad()
        loss = F.nll_loss(model(data), target)
        loss.backward()
        optimizer.step()


def test(model, loader):
    model.eval()
    with torch.no_grad():
        return sum(F.nll_loss(model(data), target, reduction="sum").item() for data, target in loader)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, default=1.0)
    args = parser.parse_args()
    model = Net()
    optimizer = optim.Adadelta(model.parameters(), lr=args.lr)
    train(model, [], optimizer)


if __name__ == "__main__":
    main()
""",
    ),
    clean(
        "N66-dcgan-generator",
        """
class Generator(nn.Module):
    def __init__(self, nz=16, ngf=8):
        super().__init__()
        self.main = nn.Sequential(
            nn.ConvTranspose2d(nz, ngf * 4, 4, 1, 0, bias=False), nn.BatchNorm2d(ngf * 4), nn.ReLU(True),
            nn.ConvTranspose2d(ngf * 4, ngf * 2, 4, 2, 1, bias=False), nn.BatchNorm2d(ngf * 2), nn.ReLU(True),
            nn.ConvTranspose2d(ngf * 2, 3, 4, 2, 1, bias=False), nn.Tanh())

    def forward(self, z):
        return self.main(z)


def weights_init(m):
    name = m.__class__.__name__
    if name.find("Conv") != -1:
        nn.init.normal_(m.weight, 0.0, 0.02)
    elif name.find("BatchNorm") != -1:
        nn.init.normal_(m.weight, 1.0, 0.02)
        nn.init.zeros_(m.bias)


model = Generator()
model.apply(weights_init)
inputs = torch.randn(2, 16, 1, 1)
""",
    ),
    clean(
        "N66-vae",
        """
class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc21, self.fc22 = nn.Linear(784, 64), nn.Linear(64, 8), nn.Linear(64, 8)
        self.fc3, self.fc4 = nn.Linear(8, 64), nn.Linear(64, 784)

    def encode(self, x):
        h = F.relu(self.fc1(x))
        return self.fc21(h), self.fc22(h)

    def reparameterize(self, mu, logvar):
        return mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)

    def forward(self, x):
        mu, logvar = self.encode(x.view(-1, 784))
        z = self.reparameterize(mu, logvar)
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z)))), mu, logvar


def loss_function(recon, x, mu, logvar):
    bce = F.binary_cross_entropy(recon, x.view(-1, 784), reduction="sum")
    return bce - 0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())


model = VAE()
inputs = torch.rand(4, 1, 28, 28)
""",
    ),
    clean(
        "N66-siamese",
        """
class SiameseNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 16, 3, 2, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
                                      nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.fc = nn.Sequential(nn.Linear(128, 32), nn.ReLU(inplace=True), nn.Linear(32, 1))
        self.sigmoid = nn.Sigmoid()

    def forward(self, a, b):
        return self.sigmoid(self.fc(torch.cat((self.features(a), self.features(b)), 1)))


def train(model, a, b, target):
    criterion = nn.BCELoss()
    return criterion(model(a, b).squeeze(), target)


model = SiameseNetwork()
inputs = (torch.randn(4, 1, 28, 28), torch.randn(4, 1, 28, 28))
""",
    ),
    clean(
        "N66-word-lm",
        """
class RNNModel(nn.Module):
    def __init__(self, ntoken=80, ninp=32, nhid=32, nlayers=2, dropout=0.5):
        super().__init__()
        self.ntoken, self.drop = ntoken, nn.Dropout(dropout)
        self.encoder = nn.Embedding(ntoken, ninp)
        self.rnn = nn.LSTM(ninp, nhid, nlayers, dropout=dropout)
        self.decoder = nn.Linear(nhid, ntoken)
        self.decoder.weight = self.encoder.weight
        nn.init.uniform_(self.encoder.weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)

    def forward(self, ids):
        output, _ = self.rnn(self.drop(self.encoder(ids)))
        decoded = self.decoder(self.drop(output)).view(-1, self.ntoken)
        return F.log_softmax(decoded, dim=1)


criterion = nn.NLLLoss()


def train(model, data, targets):
    return criterion(model(data), targets)


model = RNNModel()
inputs = torch.randint(0, 80, (7, 4))
""",
    ),
    clean(
        "N66-gcn-gat",
        """
class GraphConv(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.kernel = nn.Parameter(torch.Tensor(a, b))
        self.bias = nn.Parameter(torch.Tensor(b))
        nn.init.xavier_normal_(self.kernel)
        nn.init.zeros_(self.bias)

    def forward(self, x, adj):
        return adj @ (x @ self.kernel) + self.bias


class GraphAttention(nn.Module):
    def __init__(self, a, b, heads=2):
        super().__init__()
        self.heads, self.hidden = heads, b
        self.W = nn.Parameter(torch.empty(a, heads * b))
        self.a = nn.Parameter(torch.empty(heads, 2 * b, 1))
        nn.init.xavier_normal_(self.W)
        nn.init.xavier_normal_(self.a)

    def forward(self, h, adj):
        n = h.shape[0]
        h = torch.mm(h, self.W).view(n, self.heads, self.hidden).permute(1, 0, 2)
        source = torch.matmul(h, self.a[:, :self.hidden, :])
        target = torch.matmul(h, self.a[:, self.hidden:, :])
        e = F.leaky_relu(source + target.mT, 0.2)
        e = torch.where(adj > 0, e, -9e16 * torch.ones_like(e))
        e = F.dropout(F.softmax(e, dim=-1), 0.6, training=self.training)
        return torch.matmul(e, h).permute(1, 0, 2).reshape(n, -1)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.gat, self.gcn = GraphAttention(8, 8), GraphConv(16, 4)

    def forward(self, x, adj):
        x = F.dropout(F.elu(self.gat(x, adj)), 0.6, training=self.training)
        return F.log_softmax(self.gcn(x, adj), dim=1)


def train(model, x, adj, y):
    return nn.NLLLoss()(model(x, adj), y)


model = Net()
inputs = (torch.randn(10, 8), torch.ones(10, 10))
""",
    ),
    clean(
        "N66-actor-critic",
        """
from torch.distributions import Categorical


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.affine1 = nn.Linear(4, 128)
        self.action_head, self.value_head = nn.Linear(128, 2), nn.Linear(128, 1)
        self.saved_actions = []

    def forward(self, x):
        x = F.relu(self.affine1(x))
        return F.softmax(self.action_head(x), dim=-1), self.value_head(x)


def finish(model, states, returns):
    probs, values = model(states)
    m = Categorical(probs)
    action = m.sample()
    return (-m.log_prob(action) * (returns - values.squeeze().detach())).sum() + F.smooth_l1_loss(values.squeeze(), returns)


model = Policy()
inputs = torch.randn(3, 4)
""",
    ),
    clean(
        "N66-reinforce",
        """
class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.affine1, self.dropout, self.affine2 = nn.Linear(4, 128), nn.Dropout(p=0.6), nn.Linear(128, 2)

    def forward(self, x):
        x = F.relu(self.dropout(self.affine1(x)))
        return F.softmax(self.affine2(x), dim=1)


model = Policy()
inputs = torch.randn(1, 4)
""",
    ),
    clean(
        "N66-time-sequence",
        """
class Sequence(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm1, self.lstm2, self.linear = nn.LSTMCell(1, 51), nn.LSTMCell(51, 51), nn.Linear(51, 1)

    def forward(self, x):
        outputs = []
        h1 = c1 = h2 = c2 = torch.zeros(x.size(0), 51, dtype=x.dtype)
        for part in x.split(1, dim=1):
            h1, c1 = self.lstm1(part, (h1, c1))
            h2, c2 = self.lstm2(h1, (h2, c2))
            outputs.append(self.linear(h2))
        return torch.cat(outputs, dim=1)


criterion = nn.MSELoss()


def closure(model, x, y):
    return criterion(model(x), y)


model = Sequence()
inputs = torch.randn(3, 6)
""",
    ),
    clean(
        "N66-forward-forward",
        """
class Layer(nn.Linear):
    def forward(self, x):
        direction = x / (x.norm(2, 1, keepdim=True) + 1e-4)
        return F.relu(torch.mm(direction, self.weight.T) + self.bias.unsqueeze(0))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([Layer(784, 50), Layer(50, 50)])

    def forward(self, x):
        goodness = []
        for layer in self.layers:
            x = layer(x)
            goodness.append(x.pow(2).mean(1))
        return sum(goodness)


model = Net()
inputs = torch.rand(4, 784)
""",
    ),
    clean(
        "N66-regression",
        """
fc = nn.Linear(4, 1)
inputs = torch.randn(32, 4)


def step(x, y):
    return F.smooth_l1_loss(fc(x), y)
""",
    ),
    clean(
        "N66-super-resolution",
        """
class Net(nn.Module):
    def __init__(self, upscale=2):
        super().__init__()
        self.relu = nn.ReLU()
        self.conv1, self.conv2 = nn.Conv2d(1, 64, 5, 1, 2), nn.Conv2d(64, 64, 3, 1, 1)
        self.conv3, self.conv4 = nn.Conv2d(64, 32, 3, 1, 1), nn.Conv2d(32, upscale**2, 3, 1, 1)
        self.pixel_shuffle = nn.PixelShuffle(upscale)
        for conv in (self.conv1, self.conv2, self.conv3):
            nn.init.orthogonal_(conv.weight, nn.init.calculate_gain("relu"))
        nn.init.orthogonal_(self.conv4.weight)

    def forward(self, x):
        x = self.relu(self.conv3(self.relu(self.conv2(self.relu(self.conv1(x))))))
        return self.pixel_shuffle(self.conv4(x))


def step(model, x, y):
    return nn.MSELoss()(model(x), y)


model = Net()
inputs = torch.randn(2, 1, 16, 16)
""",
    ),
    clean(
        "N66-fast-neural-style",
        """
class ConvLayer(nn.Module):
    def __init__(self, a, b, k, stride, upsample=None):
        super().__init__()
        self.upsample = upsample
        self.reflection_pad = nn.ReflectionPad2d(k // 2)
        self.conv2d = nn.Conv2d(a, b, k, stride)

    def forward(self, x):
        if self.upsample:
            x = F.interpolate(x, mode="nearest", scale_factor=self.upsample)
        return self.conv2d(self.reflection_pad(x))


class ResidualBlock(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv1, self.in1 = ConvLayer(c, c, 3, 1), nn.InstanceNorm2d(c, affine=True)
        self.conv2, self.in2 = ConvLayer(c, c, 3, 1), nn.InstanceNorm2d(c, affine=True)
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.in2(self.conv2(self.relu(self.in1(self.conv1(x))))) + x


class TransformerNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.in1 = ConvLayer(3, 16, 9, 1), nn.InstanceNorm2d(16, affine=True)
        self.res = nn.Sequential(ResidualBlock(16), ResidualBlock(16))
        self.deconv1, self.in4 = ConvLayer(16, 8, 3, 1, upsample=2), nn.InstanceNorm2d(8, affine=True)
        self.deconv2 = ConvLayer(8, 3, 9, 1)
        self.relu = nn.ReLU()

    def forward(self, x):
        y = self.res(self.relu(self.in1(self.conv1(x))))
        return self.deconv2(self.relu(self.in4(self.deconv1(y))))


model = TransformerNet()
inputs = torch.randn(2, 3, 16, 16)
""",
    ),
    clean(
        "N66-imagenet-resnet",
        """
import os


class Bottleneck(nn.Module):
    def __init__(self, inplanes, planes, downsample=None):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inplanes, planes, 1, bias=False), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False), nn.BatchNorm2d(planes)
        self.conv3, self.bn3 = nn.Conv2d(planes, planes * 4, 1, bias=False), nn.BatchNorm2d(planes * 4)
        self.relu, self.downsample = nn.ReLU(inplace=True), downsample
        nn.init.constant_(self.bn3.weight, 0)

    def forward(self, x):
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


def make_model():
    down = nn.Sequential(nn.Conv2d(16, 64, 1, bias=False), nn.BatchNorm2d(64))
    return nn.Sequential(nn.Conv2d(3, 16, 7, 2, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True),
                         nn.MaxPool2d(3, 2, 1), Bottleneck(16, 16, down), Bottleneck(64, 16),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


model = make_model()
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-4)
inputs = torch.randn(2, 3, 64, 64)


def train(loader):
    model.train()
    for images, target in loader:
        loss = criterion(model(images), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
""",
    ),
    clean(
        "distillation",
        """
class Student(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 5))

    def forward(self, x):
        return self.net(x)


def distill(student_logits, teacher_logits, y, t=4.0):
    soft = F.kl_div(F.log_softmax(student_logits / t, dim=1), F.softmax(teacher_logits / t, dim=1), reduction="batchmean")
    return soft * t * t + F.cross_entropy(student_logits, y)


def step(model, x, teacher, y):
    return distill(model(x), teacher(x), y)


model = Student()
inputs = torch.randn(4, 10)
""",
    ),
    clean(
        "focal-loss-and-prior-bias",
        """
class RetinaHead(nn.Module):
    def __init__(self, c=16, classes=5):
        super().__init__()
        self.tower = nn.Sequential(nn.Conv2d(c, c, 3, padding=1), nn.GroupNorm(4, c), nn.ReLU(),
                                   nn.Conv2d(c, c, 3, padding=1), nn.GroupNorm(4, c), nn.ReLU())
        self.cls = nn.Conv2d(c, classes, 3, padding=1)
        nn.init.normal_(self.cls.weight, std=0.01)
        nn.init.constant_(self.cls.bias, -math.log((1 - 0.01) / 0.01))

    def forward(self, x):
        return self.cls(self.tower(x))


def focal(logits, target, alpha=0.25, gamma=2.0):
    p = torch.sigmoid(logits)
    ce = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    p_t = p * target + (1 - p) * (1 - target)
    return (alpha * (1 - p_t) ** gamma * ce).mean()


def step(model, x, y):
    return focal(model(x), y)


model = RetinaHead()
inputs = torch.randn(2, 16, 8, 8)
""",
    ),
    clean(
        "barlow-twins",
        """
class Barlow(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(20, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 16, bias=False))
        self.bn = nn.BatchNorm1d(16, affine=False)

    def forward(self, a, b):
        c = self.bn(self.net(a)).T @ self.bn(self.net(b)) / a.shape[0]
        on = torch.diagonal(c).add(-1).pow(2).sum()
        return on + 0.005 * (c.pow(2).sum() - torch.diagonal(c).pow(2).sum())


model = Barlow()
inputs = (torch.randn(8, 20), torch.randn(8, 20))
""",
    ),
    clean(
        "mc-dropout",
        '''
class BayesianNet(nn.Module):
    """Monte Carlo dropout: dropout stays on at test time."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(8, 32), nn.Linear(32, 1)

    def forward(self, x):
        x = F.dropout(F.relu(self.fc1(x)), p=0.1, training=True)
        return self.fc2(x)


model = BayesianNet()
inputs = torch.randn(8, 8)
''',
    ),
]
