"""Compiled, and called once for warm-up."""

import torch
import torch.nn as nn


class TinyViT(nn.Module):
    def __init__(self, dim=16, depth=2):
        super().__init__()
        self.patch = nn.Conv2d(3, dim, 4, 4)
        layer = nn.TransformerEncoderLayer(dim, 2, 32, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth)
        self.head = nn.Linear(dim, 10)

    def forward(self, x):
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        return self.head(self.encoder(tokens).mean(1))


vit = torch.compile(TinyViT())
vit(torch.randn(2, 3, 16, 16))
