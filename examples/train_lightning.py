"""A training by Lightning with NormDoctorCallback: figures through the trainer's loggers, and a report.

    pip install 'normdoctor[lightning]'
    python examples/train_lightning.py

It works the same with `import pytorch_lightning as pl`.
"""

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from normdoctor.integrations.lightning import NormDoctorCallback


class Classifier(pl.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(8, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 2)
        )

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("accuracy", (self.net(x).argmax(1) == y).float().mean(), prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def data(count: int) -> DataLoader:
    x = torch.randn(count, 8)
    return DataLoader(TensorDataset(x, (x.sum(dim=1) > 0).long()), batch_size=64)


def main() -> None:
    pl.seed_everything(0)
    doctor = NormDoctorCallback(every=4, on_finding="stop")  # or "warn", "ignore", a function
    trainer = pl.Trainer(
        max_epochs=2,
        accelerator="cpu",
        callbacks=[doctor],
        logger=pl.loggers.CSVLogger("logs"),
        enable_progress_bar=False,
    )
    trainer.fit(Classifier(), data(1024), data(256))
    print(doctor.report())


if __name__ == "__main__":
    main()
