"""Nets of several styles that take padded sequences, with BatchNorms over positions; and their twins."""

import torch
import torch.nn.functional as F
from torch import nn


class Masked(nn.Module):
    """BatchNorm of the valid positions of (batch, channels, time)."""

    def __init__(self, channels):
        super().__init__()
        self.norm = nn.BatchNorm1d(channels)

    def forward(self, x, mask):
        x = x.transpose(1, 2)
        y = torch.zeros_like(x)
        y[mask] = self.norm(x[mask])
        return y.transpose(1, 2)


class Weighted(nn.Module):
    """The same by weighted sums, in eval mode by torch's function."""

    def __init__(self, channels):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x, mask):
        if not self.training:
            return F.batch_norm(x, self.running_mean, self.running_var, self.gamma, self.beta)
        weight = mask.unsqueeze(1).to(x.dtype)
        mean = (x * weight).sum((0, 2)) / weight.sum()
        variance = ((x - mean[:, None]).square() * weight).sum((0, 2)) / weight.sum()
        with torch.no_grad():
            self.running_mean.lerp_(mean, 0.1)
            self.running_var.lerp_(variance, 0.1)
        x = (x - mean[:, None]) / torch.sqrt(variance[:, None] + 1e-5)
        return x * self.gamma[:, None] + self.beta[:, None]


class Convolutions(nn.Module):
    """Modules in a Sequential, which knows nothing of lengths."""

    place = "net.1"

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(6, 16, 3, padding=1), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.1),
            nn.Conv1d(16, 16, 3, padding=1), nn.BatchNorm1d(16), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.net(x).mean(2))

    @staticmethod
    def batch(generator, length):
        return _signal(generator, length)[0]


class ConvolutionsTwin(Convolutions):
    """The norms get the mask, which is read off the signal."""

    def __init__(self):
        super().__init__()
        self.a, self.b = Masked(16), Masked(16)

    def forward(self, x):
        mask = (x != 0).any(1)
        x = F.relu(self.a(self.net[0](x), mask)) * mask.unsqueeze(1)
        x = F.relu(self.b(self.net[4](x), mask)) * mask.unsqueeze(1)
        return self.head(x.sum(2) / mask.sum(1, keepdim=True))


class Tokens(nn.Module):
    """Embedded tokens, a mask for attention, BatchNorm in place of LayerNorm."""

    place = "norm"

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(50, 24, padding_idx=0)
        self.norm = nn.BatchNorm1d(24)
        self.attention = nn.MultiheadAttention(24, 4, batch_first=True)
        self.head = nn.Linear(24, 5)

    def normed(self, x, mask):
        return self.norm(x.transpose(1, 2)).transpose(1, 2)

    def forward(self, tokens, mask):
        x = self.normed(self.embed(tokens), mask)
        x = x + self.attention(x, x, x, key_padding_mask=~mask, need_weights=False)[0]
        x = (x * mask.unsqueeze(-1)).sum(1) / mask.sum(1, keepdim=True)
        return {"logits": self.head(x)}

    @staticmethod
    def batch(generator, length):
        mask = _mask(generator, length)
        return {"tokens": torch.randint(1, 50, mask.shape, generator=generator) * mask, "mask": mask}


class TokensTwin(Tokens):
    """Statistics of the valid positions alone."""

    def __init__(self):
        super().__init__()
        self.masked = Weighted(24)

    def normed(self, x, mask):
        return self.masked(x.transpose(1, 2), mask).transpose(1, 2)


class Functional(nn.Module):
    """Functions throughout, of a spectrogram as an image, lengths beside."""

    place = ""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(8, 1, 3, 3) * 0.3)
        self.weight = nn.Parameter(torch.randn(5, 8) * 0.3)
        self.register_buffer("running_mean", torch.zeros(8))
        self.register_buffer("running_var", torch.ones(8))

    def normed(self, x, mask):
        return F.batch_norm(x, self.running_mean, self.running_var, training=self.training)

    def forward(self, x, lengths):
        x = F.conv2d(x.unsqueeze(1), self.kernel, padding=1)
        mask = torch.arange(x.shape[3], device=x.device) < lengths[:, None]
        x = torch.relu(self.normed(x, mask)) * mask[:, None, None]
        x = F.dropout(x, 0.1, self.training)
        return F.linear(x.sum((2, 3)) / lengths[:, None], self.weight)

    @staticmethod
    def batch(generator, length):
        x, mask = _signal(generator, length)
        return x, mask.sum(1)


class FunctionalTwin(Functional):
    """The valid columns alone are normalized."""

    def normed(self, x, mask):
        y = torch.zeros_like(x).permute(0, 3, 1, 2)
        some = x.permute(0, 3, 1, 2)[mask]
        some = F.batch_norm(some, self.running_mean, self.running_var, training=self.training)
        y[mask] = some
        return y.permute(0, 2, 3, 1)


class Recurrent(nn.Module):
    """A recurrent layer over (batch, time, features), batch normalized in front and behind."""

    place = "before.norm"

    def __init__(self):
        super().__init__()
        self.before = nn.ModuleDict({"norm": nn.BatchNorm1d(6)})
        self.rnn = nn.GRU(6, 16, batch_first=True)
        self.after = nn.BatchNorm1d(16)
        self.head = nn.Linear(16, 5)

    def normed(self, x, mask):
        return self.before["norm"](x.flatten(0, 1)).view_as(x)

    def forward(self, x, mask):
        out, _ = self.rnn(self.normed(x, mask))
        last = out[torch.arange(len(out)), mask.sum(1) - 1]
        return self.head(self.after(last))

    @staticmethod
    def batch(generator, length):
        x, mask = _signal(generator, length)
        return x.transpose(1, 2).contiguous(), mask


class RecurrentTwin(Recurrent):
    """The norm sees packed positions."""

    def normed(self, x, mask):
        packed = nn.utils.rnn.pack_padded_sequence(x, mask.sum(1), batch_first=True, enforce_sorted=False)
        data = self.before["norm"](packed.data)
        packed = nn.utils.rnn.PackedSequence(data, packed[1], packed[2], packed[3])
        return nn.utils.rnn.pad_packed_sequence(packed, batch_first=True, total_length=x.shape[1])[0]


TWINS = {
    Convolutions: ConvolutionsTwin,
    Tokens: TokensTwin,
    Functional: FunctionalTwin,
    Recurrent: RecurrentTwin,
}
NETS = tuple(TWINS)


def _mask(generator, length, samples=96):
    lengths = torch.randint(length // 2, length + 1, (samples, 1), generator=generator)
    lengths[0] = length
    return torch.arange(length) < lengths


def _signal(generator, length):
    mask = _mask(generator, length)
    signal = torch.randn(len(mask), 6, length, generator=generator)
    return (signal + 1.0) * mask.unsqueeze(1), mask


def batches(build, count=4, length=24, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [build.batch(generator, length) for _ in range(count)]
