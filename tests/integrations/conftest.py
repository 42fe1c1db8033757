"""Small models and data for trainings by real frameworks."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn
from torch.optim import optimizer as optimizers
from torch.utils.data import DataLoader, TensorDataset

# Nothing here may reach for a network.
os.environ |= {
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
    "HF_HUB_OFFLINE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "1",
}


@pytest.fixture(autouse=True)
def _frameworks(
    torchvision_operators: None, monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> Iterator[None]:
    """Frameworks import, write nowhere else, and leave no process group: SyncBatchNorm would use it."""
    monkeypatch.chdir(str(tmp_path))
    yield
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.fixture
def net() -> Callable[..., nn.Sequential]:
    """Makes a small network of which some units may be dead."""

    def make(dead: int = 0) -> nn.Sequential:
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(8, 32),
            nn.BatchNorm1d(32),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Linear(32, 16),
            nn.ReLU(),
            nn.Linear(16, 4),
        )
        with torch.no_grad():
            model[4].bias[:dead] = -1000.0
        return model

    return make


@pytest.fixture
def loader() -> Callable[[], DataLoader]:
    """Makes a loader of eight batches of 64."""

    def make() -> DataLoader:
        generator = torch.Generator().manual_seed(1)
        x, y = torch.randn(512, 8, generator=generator), torch.randint(4, (512,), generator=generator)
        return DataLoader(TensorDataset(x, y), batch_size=64, shuffle=True)

    return make


@pytest.fixture
def hooks() -> Callable[[nn.Module], int]:
    """Counts the hooks on a model and its parameters, and those on all optimizers."""

    def count(model: nn.Module) -> int:
        modules = sum(len(one._forward_hooks) + len(one._forward_pre_hooks) for one in model.modules())
        tensors = sum(len(one._post_accumulate_grad_hooks or ()) for one in model.parameters())
        everywhere = len(optimizers._global_optimizer_pre_hooks) + len(
            optimizers._global_optimizer_post_hooks
        )
        return modules + tensors + everywhere

    return count


@pytest.fixture
def outcome() -> Iterator[Callable[[nn.Module], list[torch.Tensor]]]:
    """What a training left behind: the model's state, and that of the random generators."""

    def take(model: nn.Module) -> list[torch.Tensor]:
        state = [one.clone() for one in model.state_dict().values()]
        return [*state, torch.get_rng_state(), torch.tensor(random.random(), dtype=torch.float64)]

    kept = torch.get_rng_state(), random.getstate()
    yield take
    torch.set_rng_state(kept[0])
    random.setstate(kept[1])
