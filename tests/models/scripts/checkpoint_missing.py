"""Loads a checkpoint that is not there, after the model is built."""

import torch
from torch import nn

CKPT = "weights/does_not_exist.pth"


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.boxes = nn.Conv2d(8, 4, 1)
        self.scores = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        features = self.backbone(x)
        return {"boxes": self.boxes(features), "scores": self.scores(features)}


detector = Detector()
detector.load_state_dict(torch.load(CKPT, map_location="cpu"))
detector.eval()
