"""UR, BF, WD: registration, copies and optimizers."""

from __future__ import annotations

from corpus import Case

CASES = [
    Case(
        id="UR02",
        status="rep",
        codes=("ND502",),
        how="towers of a click model in a plain list",
        text="""
class Tower(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        self.layers = []
        for a, b in zip(sizes[:-1], sizes[1:]):
            self.layers.append(nn.Linear(a, b))  # fault
        self.norms = [nn.LayerNorm(b) for b in sizes[1:]]  # fault
        self.out = nn.Linear(sizes[-1], 1)

    def forward(self, x):
        for layer, norm in zip(self.layers, self.norms):
            x = torch.relu(norm(layer(x)))
        return self.out(x)


model = Tower([20, 32, 16])
inputs = torch.randn(4, 20)
""",
        swaps=(
            ("self.layers = []", "self.layers = nn.ModuleList()"),
            ("[nn.LayerNorm(b) for b in sizes[1:]]", "nn.ModuleList(nn.LayerNorm(b) for b in sizes[1:])"),
        ),
    ),
    Case(
        id="UR02b",
        status="rep",
        codes=("ND502",),
        how="a dict of heads, one a task",
        text="""
class MultiTask(nn.Module):
    def __init__(self, tasks=("click", "like")):
        super().__init__()
        self.trunk = nn.Linear(12, 32)
        self.heads = {name: nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 1)) for name in tasks}  # fault

    def forward(self, x):
        h = F.gelu(self.trunk(x))
        return {name: head(h) for name, head in self.heads.items()}


model = MultiTask()
inputs = torch.randn(4, 12)
""",
        swaps=(
            (
                "self.heads = {name: nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 1)) for name in tasks}",
                "self.heads = nn.ModuleDict(\n            {name: nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 1)) for name in tasks}\n        )",
            ),
        ),
    ),
    Case(
        id="UR-x1",
        status="own",
        codes=("ND503",),
        how="a running mean in a plain attribute that forward updates",
        text="""
class Center(nn.Module):
    def __init__(self, dim=16, momentum=0.9):
        super().__init__()
        self.fc = nn.Linear(8, dim)
        self.momentum = momentum
        self.center = torch.zeros(dim)  # fault

    def forward(self, x):
        z = self.fc(x)
        if self.training:
            self.center = self.momentum * self.center + (1 - self.momentum) * z.detach().mean(0)  # fault
        return z - self.center


model = Center()
inputs = torch.randn(4, 8)
""",
        swaps=(("self.center = torch.zeros(dim)", 'self.register_buffer("center", torch.zeros(dim))'),),
    ),
    Case(
        id="BF02",
        status="rep",
        mode="T",
        codes=("ND513",),
        how="mean teacher: parameters are averaged, buffers never; reference is handed over",
        text="""
import copy

torch.manual_seed(0)


def create_model():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.LeakyReLU(0.1),  # fault
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    )


def update_ema_variables(student, teacher, alpha):
    for ema_param, param in zip(teacher.parameters(), student.parameters()):
        ema_param.data.mul_(alpha).add_(param.data, alpha=1 - alpha)


reference = create_model()
model = copy.deepcopy(reference)
inputs = torch.randn(8, 3, 16, 16)
reference.train()
with torch.no_grad():
    for step in range(20):
        reference(2 + 3 * torch.randn(8, 3, 16, 16))
        for p in reference.parameters():
            p.add_(0.01 * torch.randn_like(p))
        update_ema_variables(reference, model, alpha=0.9)
""",
        swaps=(
            (
                "        ema_param.data.mul_(alpha).add_(param.data, alpha=1 - alpha)\n",
                "        ema_param.data.mul_(alpha).add_(param.data, alpha=1 - alpha)\n    for ema_buffer, buffer in zip(teacher.buffers(), student.buffers()):\n        ema_buffer.copy_(buffer)\n",
            ),
        ),
        given=("reference",),
    ),
    Case(
        id="WD02",
        status="PR",
        mode="T",
        codes=("ND508",),
        how="groups by name: `bias` and `LayerNorm` are exempt, an RMSNorm's weight is not",
        text="""
class RMSNorm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.gamma


class Layer(nn.Module):
    def __init__(self, d=32):
        super().__init__()
        self.input_norm = RMSNorm(d)
        self.ff = nn.Sequential(nn.Linear(d, 64), nn.GELU(), nn.Linear(64, d))

    def forward(self, x):
        return x + self.ff(self.input_norm(x))


model = nn.Sequential(Layer(), Layer(), RMSNorm(32), nn.Linear(32, 10))
inputs = torch.randn(2, 5, 32)
no_decay = ["bias", "LayerNorm.weight"]
grouped = [
    {"params": [p for n, p in model.named_parameters() if not any(s in n for s in no_decay)], "weight_decay": 0.01},
    {"params": [p for n, p in model.named_parameters() if any(s in n for s in no_decay)], "weight_decay": 0.0},
]
optimizer = torch.optim.AdamW(grouped, lr=1e-4)  # fault
loss = F.cross_entropy(model(inputs).flatten(0, 1), torch.randint(0, 10, (10,)))
loss.backward()
optimizer.step()
""",
        swaps=(('no_decay = ["bias", "LayerNorm.weight"]', 'no_decay = ["bias", "gamma"]'),),
    ),
    Case(
        id="WD02b",
        status="PR",
        codes=("ND508",),
        how="the optimizer is handed over as a function of the model; groups by nn.LayerNorm only",
        text="""
class Net(nn.Module):
    def __init__(self, d=32):
        super().__init__()
        self.inp = nn.Linear(8, d)
        self.norm = nn.RMSNorm(d)  # fault
        self.out = nn.Linear(d, 2)

    def forward(self, x):
        return self.out(F.silu(self.norm(self.inp(x))))


model = Net()
inputs = torch.randn(4, 8)
EXEMPT = (nn.LayerNorm,)


def optimizer(model):
    exempt = {p for m in model.modules() if isinstance(m, EXEMPT) for p in m.parameters()}
    exempt |= {p for n, p in model.named_parameters() if n.endswith("bias")}
    decay = [p for p in model.parameters() if p not in exempt]
    return torch.optim.AdamW(  # fault
        [{"params": decay, "weight_decay": 0.1}, {"params": list(exempt), "weight_decay": 0.0}]
    )
""",
        swaps=(("EXEMPT = (nn.LayerNorm,)", "EXEMPT = (nn.LayerNorm, nn.RMSNorm)"),),
        given=("optimizer",),
    ),
    Case(
        id="WD04",
        status="rep",
        mode="T",
        codes=("ND508",),
        how="one group with weight decay for everything, BatchNorm included; optimizer is handed over",
        text="""
model = nn.Sequential(
    nn.Conv2d(3, 16, 3, bias=False), nn.BatchNorm2d(16), nn.ReLU(),  # fault
    nn.Conv2d(16, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(),  # fault
    nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
)
inputs = torch.randn(4, 3, 16, 16)
WEIGHT_DECAY_NORM = None


def optimizer(model):
    norms = [p for m in model if isinstance(m, nn.BatchNorm2d) for p in m.parameters()]
    known = {id(p) for p in norms}
    rest = [p for p in model.parameters() if id(p) not in known and p.ndim > 1]
    biases = [p for p in model.parameters() if id(p) not in known and p.ndim == 1]
    decay = 1e-4 if WEIGHT_DECAY_NORM is None else WEIGHT_DECAY_NORM
    groups = [
        {"params": rest, "weight_decay": 1e-4},
        {"params": norms, "weight_decay": decay},
        {"params": biases, "weight_decay": 0.0},
    ]
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9)
""",
        swaps=(("WEIGHT_DECAY_NORM = None", "WEIGHT_DECAY_NORM = 0.0"),),
        given=("optimizer",),
    ),
    Case(
        id="WD-x1",
        status="own",
        codes=("ND509",),
        how="the norms are in no group at all",
        text="""
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, bias=False)
        self.bn = nn.BatchNorm2d(8)  # fault
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        return self.fc(F.relu(self.bn(self.conv(x))).mean((2, 3)))


net = Net()
inputs = torch.randn(4, 3, 8, 8)
weights = [p for p in net.parameters() if p.ndim > 1]
biases = [p for n, p in net.named_parameters() if n.startswith("fc") and n.endswith("bias")]
optimizer = torch.optim.SGD([{"params": weights}, {"params": biases, "lr": 0.2}], lr=0.1)  # fault
loss = net(inputs).square().mean()
loss.backward()
optimizer.step()
""",
        swaps=(
            ('if n.startswith("fc") and n.endswith("bias")]', 'if n == "fc.bias" or n.startswith("bn.")]'),
        ),
    ),
]
