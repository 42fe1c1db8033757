"""A LightningModule where Lightning is not installed."""

import torch
import torch.nn.functional as F
from torch import nn

import surely_not_installed_lightning as pl


class LitClassifier(pl.LightningModule):
    def __init__(self, hidden_dim=32, learning_rate=1e-3):
        super().__init__()
        self.save_hyperparameters()
        self.learning_rate = learning_rate
        self.l1 = nn.Linear(28 * 28, hidden_dim)
        self.bn = nn.BatchNorm1d(hidden_dim)
        self.l2 = nn.Linear(hidden_dim, 10)

    def forward(self, x):
        return self.l2(torch.relu(self.bn(self.l1(x.view(x.size(0), -1)))))

    def training_step(self, batch, batch_idx):
        x, y = batch
        y_hat = self(x)
        return F.cross_entropy(y_hat, y)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)


if __name__ == "__main__":
    pl.Trainer(max_epochs=1).fit(LitClassifier())
