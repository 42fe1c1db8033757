import torch.nn as nn


def norm_layer(channels):
    return nn.GroupNorm(2, channels)
