"""Faults of the modes, gradients and updates of a training, ND706 to ND711 and ND801 to ND808."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .replicas import Replicated
from .scenes import DEEP, NORM, Accumulating, Deep, Half, Trained, logits
from .table import fault


def first(scene: Trained) -> str:
    return str(scene.net.places[0])  # type: ignore[attr-defined]


@fault("ND706", Trained, NORM.NETS)
def a_second_pass_on_the_same_batch(scene: Trained) -> str:
    def loss(x: Tensor, y: Tensor) -> Tensor:
        return scene.cross_entropy(x, y) + 0.1 * logits(scene.model(x)).pow(2).mean()

    scene.loss = loss
    return first(scene)


@fault("ND709", Accumulating, NORM.NETS, beside="ND701")
def micro_batches_of_four(scene: Accumulating) -> str:
    scene.size = 4
    return str(scene.net.places[-1])  # type: ignore[attr-defined]


@fault("ND710", Trained, NORM.NETS)
def evaluated_without_eval(scene: Trained) -> str:
    def between(step: int) -> None:
        if step % 4 == 3:
            with torch.no_grad():
                for _ in range(3):
                    scene.model(scene.batch()[0])

    scene.between = between
    return first(scene)


@fault("ND711", Trained, NORM.NETS)
def never_back_to_train(scene: Trained) -> str:
    def between(step: int) -> None:
        if step == 3:
            scene.model.eval()
            with torch.no_grad():
                scene.model(scene.batch()[0])

    scene.between = between
    return first(scene)


@fault("ND713", Replicated, NORM.NETS)
def a_norm_of_one_rank_that_drifts(scene: Replicated) -> str:
    scene.drifting = str(scene.net.places[1])  # type: ignore[attr-defined]
    return scene.drifting


@fault("ND808", Trained, NORM.NETS)
def a_gradient_penalty(scene: Trained) -> str:
    def loss(x: Tensor, y: Tensor) -> Tensor:
        x.requires_grad_()
        output = logits(scene.model(x))
        (slope,) = torch.autograd.grad(output[:, 0].sum(), x, create_graph=True)
        return F.cross_entropy(output, y) + slope.pow(2).flatten(1).sum(1).mean()

    scene.loss = loss
    return first(scene)


@fault("ND801", Deep, DEEP.NETS)
def a_gradient_that_fades(scene: Deep) -> str:
    scene.put(DEEP.Scale(1e-7))
    return str(scene.net.path(0))  # type: ignore[attr-defined]


@fault("ND802", Deep, DEEP.NETS, beside="ND606")
def a_gradient_that_explodes(scene: Deep) -> str:
    scene.put(DEEP.Scale(1e9))
    scene.rate = 1e-6
    return str(scene.net.path(DEEP.AT))  # type: ignore[attr-defined]


@fault("ND803", Deep, DEEP.NETS, beside="ND602 ND606")
def an_activation_that_is_always_off(scene: Deep) -> str:
    scene.put(DEEP.Dead())
    return str(scene.net.path(DEEP.AT))  # type: ignore[attr-defined]


@fault("ND804", Deep, DEEP.NETS, beside="ND603 ND606 ND607 ND801")
def a_learning_rate_far_too_large(scene: Deep) -> str:
    scene.rate = 3.0
    scene.steps = 12
    return str(scene.net.path(DEEP.AT))  # type: ignore[attr-defined]


@fault("ND805", Deep, DEEP.NETS)
def a_weight_that_is_written_back(scene: Deep) -> str:
    chosen = [parameter for parameter in scene.model.parameters() if parameter.dim() > 1][DEEP.AT]
    value = chosen.detach().clone()

    class Overwriting(torch.optim.Adam):
        """What overwrites a weight after the step."""

        def step(self, closure=None):  # type: ignore[no-untyped-def]
            super().step(closure)
            chosen.data.copy_(value)

    optimizer = Overwriting(scene.model.parameters(), lr=scene.rate)
    scene.optimizer = lambda: optimizer  # type: ignore[method-assign]
    return str(scene.net.path(DEEP.AT))  # type: ignore[attr-defined]


@fault("ND806", Half, DEEP.NETS, beside="ND606")
def a_loss_that_is_not_scaled(scene: Half) -> str:
    scene.scaler = torch.amp.GradScaler("cpu", enabled=False)
    return {DEEP.Sequential: "17", DEEP.Functional: "weights"}.get(scene.net, "head")


@fault("ND807", Deep, DEEP.NETS, beside="ND608")
def the_slope_of_a_root_at_zero(scene: Deep) -> str:
    scene.put(DEEP.WithDeviation())
    for name, parameter in scene.model.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)

    def padded(x: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(x[:1]), x[1:]])

    scene.prepare = padded
    if scene.net is DEEP.Blocks:
        return f"blocks.{DEEP.AT}.norm"
    return str(scene.net.path(DEEP.AT))  # type: ignore[attr-defined]
