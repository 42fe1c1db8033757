"""Required arguments, and class bodies that read them from a global."""

import argparse

import torch
import torch.nn as nn

parser = argparse.ArgumentParser()
parser.add_argument("data", metavar="DIR", help="path to dataset")
parser.add_argument("--arch", choices=["small", "large"], required=True)
parser.add_argument("--num-classes", type=int, required=True)
parser.add_argument("--widths", type=int, nargs=2, required=True)
parser.add_argument("--dropout", type=float, required=True)
opt = parser.parse_args()


class Classifier(nn.Module):
    width = opt.widths[0]

    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(32, self.width)
        self.norm = nn.LayerNorm(self.width)
        self.drop = nn.Dropout(opt.dropout)
        self.head = nn.Linear(self.width, opt.num_classes)

    def forward(self, x):
        return self.head(self.drop(self.norm(self.hidden(x)).relu()))


model = Classifier()
