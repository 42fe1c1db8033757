"""Batch normalization over the batches of all ranks, on any device and backend of `torch.distributed`."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm as _TorchBatchNorm

from normdoctor.layers import reference, verify
from normdoctor.layers.activations import Activation
from normdoctor.layers.backends import Backend
from normdoctor.layers.batchnorm import _BatchNorm
from normdoctor.layers.symbolic import leaf, traced


class SyncBatchNorm(_BatchNorm, nn.SyncBatchNorm):
    r"""Normalizes each channel by the statistics of the batches of all ranks together.

    With the count `n[k]`, mean and sum of squared deviations `M2` of a channel on rank `k`,

        n    = sum(n[k]),   mean = sum(n[k] * mean[k]) / n
        M2   = sum(M2[k] + n[k] * (mean[k] - mean)**2)               (Chan et al. 1983)
        var  = M2 / n
        y    = activation((x - mean) / sqrt(var + eps) * weight + bias + residual)

    and backward, with `g` the gradient of the normalized values and `xhat` these values,

        dx   = (g - sum(g) / n - xhat * sum(g * xhat) / n) / sqrt(var + eps)       sums over all ranks

    So the result is that of one process that sees the concatenated batch, also where the ranks hold unequal
    numbers of samples, or none. The gradients of `weight` and `bias` are those of the rank's own samples, as
    everywhere in data-parallel training. Each rank must take part in forward and in backward.

    torch's layer trains on cards only; this one on every device. In eval mode, without a process group, and
    with a single rank it is `BatchNorm`. It can be differentiated once.

    Args:
        num_features: Number of channels `C` of the input.
        eps: Added to the variance, inside the square root.
        momentum: Weight of the new batch in the running statistics; None for the plain average of all
            batches.
        affine: Whether to learn `weight` (initially one) and `bias` (initially zero), one value a channel.
        track_running_stats: Whether to keep running statistics; without them, eval mode takes the batch's
            too.
        process_group: Ranks to work together; None for all.
        device: Where parameters and buffers are made.
        dtype: Type of parameters and buffers.
        bias: Whether an affine layer has a bias.
        activation: Name of the activation to end with: "relu", "leaky_relu", "silu", "gelu", "gelu_tanh".
        backend: What computes it; "auto" takes the fastest.

    Shape:
        Input, residual and output `(N, C, *)`; `N` may differ between ranks and may be 0.

    State:
        That of BatchNorm; state dicts load both ways.

    References:
        Chan, Golub and LeVeque, Algorithms for Computing the Sample Variance, 1983.
        Peng et al., MegDet, CVPR 2018, https://arxiv.org/abs/1711.07240
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: Any = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
        activation: Activation | None = None,
        backend: Backend = "auto",
    ) -> None:
        _TorchBatchNorm.__init__(
            self, num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype
        )
        if not bias:
            self.register_parameter("bias", None)
        self.process_group = process_group
        self._fuse(activation, backend)

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """Normalize `input` of shape `(N, C, *)`; `residual` is added before the activation."""
        if traced(input):
            return leaf(self, input, residual)
        self._check_input_dim(input)
        self._check_non_zero_input_channels(input)
        group = self._group()
        if group is None:
            return self.alone(input, residual)
        if self.eps <= 0.0:
            raise ValueError(f"batch_norm eps must be positive during training, but got {self.eps}")
        verify.floating(input)
        verify.per_channel(input, weight=self.weight, bias=self.bias)
        verify.residual(input, residual)
        normalized, mean, variance, count = _Synchronized.apply(  # type: ignore[no-untyped-call]
            input, self.eps, group
        )
        y: Tensor = reference.channel_affine(normalized, self.weight, self.bias, self.activation, residual)
        self._keep(mean, mean, variance)  # also of a rank that has no samples
        self._track_all(mean, variance, count)
        return y.to(input.dtype)

    def alone(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """The forward of a rank that works by itself."""
        return super().forward(input, residual)

    def _group(self) -> Any:
        """The ranks to work with, None where this one works alone."""
        if not (self.training and dist.is_available() and dist.is_initialized()):
            return None
        group = self.process_group or dist.group.WORLD
        return group if dist.get_world_size(group) > 1 else None

    @torch.no_grad()
    def _track_all(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move the running statistics; the count is on the device, and nobody waits for it."""
        unbiased = variance * (count / (count - 1).clamp_min(1))
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            seen = count > 0
            mean = torch.where(seen, mean, self.running_mean.to(mean.dtype))
            unbiased = torch.where(seen, unbiased, self.running_var.to(mean.dtype))
        self._track(mean, unbiased)

    @classmethod
    def convert_sync_batchnorm(cls, module: nn.Module, process_group: Any = None) -> nn.Module:
        """Replace every BatchNorm in `module` by a layer of this class, with the same tensors."""
        result = module
        if isinstance(module, _TorchBatchNorm):
            result = cls._of(module, process_group)
        for name, child in module.named_children():
            result.add_module(name, cls.convert_sync_batchnorm(child, process_group))
        return result

    @classmethod
    def _of(cls, module: _TorchBatchNorm, process_group: Any) -> SyncBatchNorm:
        layer = cls(
            module.num_features,
            module.eps,
            module.momentum,
            module.affine,
            module.track_running_stats,
            process_group,
            device="meta",  # the old layer's tensors take the place of these
            bias=module.bias is not None,
            activation=getattr(module, "activation", None),
            backend=getattr(module, "backend", "auto"),
        )
        layer._parameters.update(module._parameters)
        layer._buffers.update(module._buffers)
        layer.training = module.training
        if hasattr(module, "qconfig"):
            layer.qconfig = module.qconfig
        return layer


class _Synchronized(torch.autograd.Function):
    """`(x - mean) / sqrt(var + eps)` with mean and variance over all ranks."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, eps: float, group: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        wide = x.to(reference.computing_type(x.dtype))
        channels = x.shape[1]
        local = torch.zeros(2 * channels + 1, dtype=wide.dtype, device=x.device)
        if x.numel() > 0:
            axes = (0, *range(2, x.dim()))
            centred, mean = reference.center(wide, axes)
            count = local.new_full((1,), x.numel() // channels)
            squares = reference.mean_over(centred.square(), axes) * count
            local = torch.cat([mean.flatten(), squares.flatten(), count])
        shares = [torch.empty_like(local) for _ in range(dist.get_world_size(group))]
        dist.all_gather(shares, local, group=group)
        means, squares, counts = torch.stack(shares).tensor_split([channels, 2 * channels], dim=1)
        count = counts.sum()
        mean = (counts * means).sum(0) / count.clamp_min(1)
        variance = (squares + counts * (means - mean).square()).sum(0) / count.clamp_min(1)
        rstd = torch.rsqrt(variance + eps)
        normalized = (wide - reference.along_channels(mean, x)) * reference.along_channels(rstd, x)
        ctx.save_for_backward(normalized, rstd, count)
        ctx.group, ctx.dtype = group, x.dtype  # type: ignore[attr-defined]
        ctx.mark_non_differentiable(mean, variance, count)
        return normalized, mean, variance, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        normalized, rstd, count = ctx.saved_tensors
        gradient = gradients[0]
        axes = (0, *range(2, gradient.dim()))
        sums = torch.cat([gradient.sum(axes), (gradient * normalized).sum(axes)])
        # Also a rank whose input needs no gradient takes part: the others wait for it.
        dist.all_reduce(sums, group=ctx.group)
        of_gradient, of_product = (sums / count.clamp_min(1)).chunk(2)
        spread = [reference.along_channels(v, gradient) for v in (of_gradient, of_product, rstd)]
        dx = (gradient - spread[0] - normalized * spread[1]) * spread[2]
        return dx.to(ctx.dtype), None, None
