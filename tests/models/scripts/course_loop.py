# Lesson 4: a network from scratch, trained right in the cell
import torch
from torch import nn
import torch.nn.functional as F

torch.manual_seed(42)
X = torch.rand(60, 20)
Y = (X.sum(1) > 10).long()

net = nn.Sequential(
    nn.Linear(20, 32),
    nn.Sigmoid(),
    nn.Linear(32, 16),
    nn.ReLU(),
    nn.Linear(16, 2),
    nn.Softmax(dim=1),
)
lossfn = nn.CrossEntropyLoss()
opt = torch.optim.SGD(net.parameters(), lr=0.5)

for epoch in range(1000):
    for start in range(0, 60, 6):
        batch, labels = X[start : start + 6], Y[start : start + 6]
        opt.zero_grad()
        prediction = net(batch)
        loss = lossfn(prediction, labels)
        loss.backward()
        opt.step()
    if epoch % 100 == 0:
        print(f"epoch {epoch}: loss {loss.item():.3f}")
