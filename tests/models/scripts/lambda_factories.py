"""A zoo of factories, two of them lambdas."""

import torch.nn as nn


class Mixer(nn.Module):
    def __init__(self, tokens, dim):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.token_mix = nn.Linear(tokens, tokens)
        self.norm2 = nn.LayerNorm(dim)
        self.channel_mix = nn.Linear(dim, dim)

    def forward(self, x):
        x = x + self.token_mix(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channel_mix(self.norm2(x))


mixer_tiny = lambda: Mixer(tokens=4, dim=8)  # noqa: E731
mixer_small = lambda tokens=8: Mixer(tokens, 16)  # noqa: E731


def mixer_base(pretrained=True):
    model = Mixer(16, 32)
    if pretrained:
        from torch.hub import load_state_dict_from_url

        model.load_state_dict(load_state_dict_from_url("https://weights.example.org/mixer.pth"))
    return model


def count(model):
    return sum(p.numel() for p in model.parameters())
