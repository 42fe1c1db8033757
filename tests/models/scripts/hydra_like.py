"""A config that a decorator injects into main(); the library is not installed."""

import surely_not_installed_hydra as hydra
from surely_not_installed_omegaconf import DictConfig, OmegaConf
import torch.nn as nn


class ModelConfig:
    width: int = 24
    classes: int = 5


class Tower(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv1d(4, cfg.width, 3), nn.BatchNorm1d(cfg.width), nn.ReLU(), nn.AdaptiveAvgPool1d(1), nn.Flatten()
        )
        self.head = nn.Linear(cfg.width, cfg.classes)

    def forward(self, x):
        return self.head(self.net(x))


@hydra.main(config_path="conf", config_name="config")
def main(cfg: DictConfig) -> None:
    print(OmegaConf.to_yaml(cfg))
    Tower(cfg.model)


if __name__ == "__main__":
    main()
