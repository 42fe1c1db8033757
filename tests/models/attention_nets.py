"""Attention in every spelling; `gain` multiplies the queries."""

import math

import torch
import torch.nn.functional as F
from torch import nn

D, T = 32, 24


def data(n=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(4, T, D, generator=generator) for _ in range(n)]


class Base(nn.Module):
    def __init__(self, gain=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.gain = gain
        self.q, self.k, self.v = nn.Linear(D, D), nn.Linear(D, D), nn.Linear(D, D)
        self.softmax = nn.Softmax(dim=-1)
        self.dropout = nn.Dropout(0.1)

    def heads(self, x):
        q, k, v = (
            layer(x).view(*x.shape[:2], 4, D // 4).transpose(1, 2) for layer in (self.q, self.k, self.v)
        )
        return q * self.gain, k, v

    def causal(self):
        return torch.ones(T, T, dtype=torch.bool).tril()


class ByHand(Base):
    def forward(self, x):
        q, k, v = self.heads(x)
        return torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(D // 4), -1) @ v


class MaskedDropout(Base):
    def forward(self, x):
        q, k, v = self.heads(x)
        scores = (q @ k.transpose(-2, -1)).masked_fill(~self.causal(), float("-inf"))
        return torch.matmul(self.dropout(F.softmax(scores, dim=-1, dtype=torch.float32).to(q.dtype)), v)


class Module(Base):
    def forward(self, x):
        weights = self.softmax(torch.bmm(self.q(x) * self.gain, self.k(x).transpose(1, 2)) / math.sqrt(D))
        return torch.bmm(weights, self.v(x))


class Einsum(Base):
    def forward(self, x):
        q, k, v = self.heads(x)
        weights = torch.einsum("bhid,bhjd->bhij", q, k).softmax(dim=-1)
        return torch.einsum("bhij,bhjd->bhid", weights, v)


class Keys(Base):
    """Keys come first, values are multiplied from the left."""

    def forward(self, x):
        weights = F.softmax(self.k(x) @ (self.q(x) * self.gain).transpose(1, 2) / math.sqrt(D), 1)
        return self.v(x).transpose(1, 2) @ weights


class Fused(Base):
    def forward(self, x):
        return F.scaled_dot_product_attention(*self.heads(x))


class FusedCausal(Base):
    def forward(self, x):
        return F.scaled_dot_product_attention(*self.heads(x), is_causal=True)


class FusedMask(Base):
    def forward(self, x):
        q, k, v = self.heads(x)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=self.causal().expand(4, 1, T, T), scale=0.3)


class FusedBias(Base):
    def forward(self, x):
        q, k, v = self.heads(x)
        return F.scaled_dot_product_attention(q, k, v, torch.zeros(T, T).masked_fill(~self.causal(), -1e9))


class Grouped(Base):
    def forward(self, x):
        q, k, v = self.heads(x)
        return F.scaled_dot_product_attention(q, k[:, :2], v[:, :2], enable_gqa=True)


class Multihead(nn.Module):
    def __init__(self, gain=1.0, **options):
        super().__init__()
        torch.manual_seed(0)
        self.mha = nn.MultiheadAttention(D, 4, batch_first=True, dropout=0.1, **options)
        with torch.no_grad():
            self.mha.in_proj_weight[:D] *= gain

    def forward(self, x):
        padding = torch.zeros(len(x), T, dtype=torch.bool)
        padding[:, -5:] = True
        return self.mha(x, x, x, key_padding_mask=padding, need_weights=False)[0]


class MultiheadCausal(Multihead):
    def forward(self, x):
        mask = torch.full((T, T), float("-inf")).triu(1)
        return self.mha(x, x, x, attn_mask=mask, is_causal=True)[0]


class Encoder(nn.Module):
    def __init__(self, gain=1.0):
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(D, 4, 64, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        with torch.no_grad():
            self.encoder.layers[0].self_attn.in_proj_weight[:D] *= gain

    def forward(self, x):
        return self.encoder(x)


NETS = [
    *(ByHand, MaskedDropout, Module, Einsum, Keys, Fused, FusedCausal, FusedMask, FusedBias, Grouped),
    *(Multihead, MultiheadCausal, Encoder),
]
