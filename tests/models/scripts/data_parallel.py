"""The model exists only inside nn.DataParallel."""

import torch
import torch.nn as nn


class VGGish(nn.Module):
    cfg = [8, "M", 16, "M"]

    def __init__(self):
        super().__init__()
        self.features = self._make_layers()
        self.classifier = nn.Linear(16, 10)

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))

    def _make_layers(self):
        layers, channels = [], 3
        for item in self.cfg:
            if item == "M":
                layers += [nn.MaxPool2d(2)]
            else:
                layers += [nn.Conv2d(channels, item, 3, padding=1), nn.BatchNorm2d(item), nn.ReLU(inplace=True)]
                channels = item
        return nn.Sequential(*layers)


model = nn.DataParallel(VGGish())
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
criterion = nn.CrossEntropyLoss()
output = model(torch.randn(2, 3, 16, 16))
criterion(output, torch.tensor([1, 2])).backward()
