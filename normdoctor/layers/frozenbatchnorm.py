"""Batch normalization with statistics, scale and shift that never change."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as _TorchBatchNorm

from normdoctor.layers import functional, watched
from normdoctor.layers.activations import Activation
from normdoctor.layers.backends import Backend
from normdoctor.layers.fused import Norm


class FrozenBatchNorm(Norm):
    r"""BatchNorm in eval mode, whatever mode the model is in, with nothing to learn.

        y = activation((x - running_mean) / sqrt(running_var + eps) * weight + bias + residual)

    For fine-tuning with batches too small to take statistics of, as detection does. All four tensors are
    buffers: no optimizer moves them, and `train()` changes nothing.

    Args:
        num_features: Number of channels `C` of the input.
        eps: Added to the variance, inside the square root; that of the trained layer.
        affine: Whether there are `weight` and `bias`.
        device: Where the buffers are made.
        dtype: Type of the buffers.
        bias: Whether an affine layer has a bias.
        activation: Name of the activation to end with: "relu", "leaky_relu", "silu", "gelu", "gelu_tanh".
        backend: What computes it; "auto" takes the fastest.

    Shape:
        Input, residual and output `(N, C, *)`.

    State:
        Buffers `weight`, `bias`, `running_mean`, `running_var` of shape `(C,)`, as torchvision's
        FrozenBatchNorm2d has them. A BatchNorm's state dict loads too (`num_batches_tracked` is left out),
        and the other way round.

    References:
        He et al., Mask R-CNN, ICCV 2017, https://arxiv.org/abs/1703.06870 (section 3.1, frozen BatchNorm).
    """

    # Of a state dict of version 1, torch's BatchNorm does not expect num_batches_tracked.
    _version = 1
    weight: Tensor | None
    bias: Tensor | None
    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        affine: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
        activation: Activation | None = None,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.affine = affine
        ones, zeros = (make(num_features, device=device, dtype=dtype) for make in (torch.ones, torch.zeros))
        self.register_buffer("weight", ones if affine else None)
        self.register_buffer("bias", zeros if affine and bias else None)
        self.register_buffer("running_mean", zeros.clone())
        self.register_buffer("running_var", ones.clone())
        self._fuse(activation, backend)

    def _normalize(
        self, input: Tensor, activation: Activation | None = None, residual: Tensor | None = None
    ) -> Tensor:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2D input (got {input.dim()}D input)")
        return functional.fixed_norm(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.eps,
            activation,
            residual,
            backend=self.backend,
        )

    def _seen_as(self) -> watched.Seen:
        running = (self.running_mean, self.running_var)
        return watched.batch_norm, (*running, self.weight, self.bias, False, 0.0, self.eps)

    @classmethod
    def of(cls, module: _TorchBatchNorm) -> FrozenBatchNorm:
        """A frozen layer with the values of a BatchNorm.

        Raises:
            ValueError: If that layer keeps no running statistics.
        """
        mean, variance = module.running_mean, module.running_var
        if mean is None or variance is None:
            raise ValueError("expected a BatchNorm with running statistics, got one that keeps none")
        layer = cls(
            module.num_features,
            module.eps,
            module.weight is not None,
            mean.device,
            mean.dtype,
            bias=module.bias is not None,
            activation=getattr(module, "activation", None),
            backend=getattr(module, "backend", "auto"),
        )
        for name in ("weight", "bias", "running_mean", "running_var"):
            value = getattr(module, name)
            setattr(layer, name, None if value is None else value.detach().clone())
        return layer

    @classmethod
    def convert(cls, module: nn.Module) -> nn.Module:
        """Replace every BatchNorm in `module` by its frozen form."""
        if isinstance(module, _TorchBatchNorm):
            return cls.of(module)
        for name, child in module.named_children():
            module.add_module(name, cls.convert(child))
        return module

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state_dict.pop(f"{prefix}num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        """Show the settings."""
        shown = f"{self.num_features}, eps={self.eps}"
        if not self.affine:
            shown += ", affine=False"
        return ", ".join(part for part in (shown, super().extra_repr()) if part)
