"""Batch normalization that takes the place of `torch.nn.BatchNorm1d`, `2d` and `3d` one for one."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as _TorchBatchNorm

from normdoctor.layers import direct, functional, native, verify, watched
from normdoctor.layers.activations import Activation
from normdoctor.layers.backends import Backend
from normdoctor.layers.fused import Norm


class _BatchNorm(Norm, _TorchBatchNorm):
    r"""Normalizes each channel over the batch and all positions.

    With `A(c)` the set of all `n` values of channel `c` in an input of shape `(N, C, *)`, in training

        mean[c] = sum(x over A(c)) / n
        var[c]  = sum((x - mean[c])**2 over A(c)) / n
        y       = activation((x - mean) / sqrt(var + eps) * weight + bias + residual)

        running_mean <- (1 - momentum) * running_mean + momentum * mean
        running_var  <- (1 - momentum) * running_var  + momentum * var * n / (n - 1)

    and in eval mode the same `y` with the running statistics in the place of the batch's. So the network that
    is evaluated is not the one that was trained, and differs the more, the smaller the batches are: below
    about 8 samples take GroupNorm. The running variance is the unbiased one, the variance that normalizes is
    not. A `momentum` of None averages all batches equally; it is one minus what Keras calls momentum.

    Statistics and the affine map are computed in float32 for float16 and bfloat16 inputs.

    Args:
        num_features: Number of channels `C` of the input.
        eps: Added to the variance, inside the square root.
        momentum: Weight of the new batch in the running statistics; None for the plain average of all
            batches.
        affine: Whether to learn `weight` (initially one) and `bias` (initially zero), one value a channel.
        track_running_stats: Whether to keep running statistics; without them, eval mode takes the batch's
            too.
        device: Where parameters and buffers are made.
        dtype: Type of parameters and buffers.
        bias: Whether an affine layer has a bias.
        activation: Name of the activation to end with: "relu", "leaky_relu", "silu", "gelu", "gelu_tanh".
        backend: What computes it; "auto" takes the fastest.

    Shape:
        Input, residual and output `(N, C, *)`, with the dimensions of torch's layer of the same name.

    State:
        `weight`, `bias`, `running_mean`, `running_var` of shape `(C,)` and `num_batches_tracked`, under
        torch's names: state dicts load both ways.

    Raises:
        ValueError: If an input has the wrong number of dimensions, or one value a channel in training.
        RuntimeError: If an input has another number of channels, or a type that does not go with the
            parameters.

    References:
        Ioffe and Szegedy, Batch Normalization, ICML 2015, https://arxiv.org/abs/1502.03167
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
        activation: Activation | None = None,
        backend: Backend = "auto",
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device=device, dtype=dtype)
        if not bias:
            self.register_parameter("bias", None)
        self._fuse(activation, backend)

    def _normalize(
        self, input: Tensor, activation: Activation | None = None, residual: Tensor | None = None
    ) -> Tensor:
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        if not self._takes_statistics():
            return self._by_running_statistics(input, activation, residual)
        if functional.torch_itself(input, self.backend):
            verify.residual(input, residual)
            return native.finish(self._through_torch(input), activation, residual)
        tracked = self._in_one_call(input, activation, residual)
        if tracked is not None:
            return tracked
        y, mean, variance = functional.batch_norm(
            input, self.weight, self.bias, self.eps, activation, residual, backend=self.backend
        )
        self._take(mean, variance, input)
        return y

    def _seen_as(self) -> watched.Seen:
        training = self._takes_statistics()
        running = (self.running_mean, self.running_var)
        if self.training and not self.track_running_stats:
            running = (None, None)
        return watched.batch_norm, (*running, self.weight, self.bias, training, self._weight(), self.eps)

    def _weight(self) -> float:
        """The momentum; of the average over all batches the next factor, where nobody has to wait for it."""
        if self.momentum is not None or not self.training:
            return self.momentum or 0.0
        counted = self.num_batches_tracked
        return 1.0 if counted is None or counted.device.type != "cpu" else 1.0 / (int(counted) + 1)

    def _in_one_call(
        self, input: Tensor, activation: Activation | None, residual: Tensor | None
    ) -> Tensor | None:
        """The output, where one call of torch normalizes and moves the running statistics fastest."""
        if not (self.training and self.track_running_stats) or self.momentum is None:
            return None
        if self.running_mean is None or self.running_var is None:
            return None
        found = functional.batch_norm_tracked(
            input,
            self.running_mean,
            self.running_var,
            self.weight,
            self.bias,
            self.momentum,
            self.eps,
            activation,
            residual,
            backend=self.backend,
        )
        if found is None:
            return None
        y, mean, rstd = found
        self._track(None, None)
        self.statistics.keep(mean, rstd=rstd, eps=self.eps)
        return y

    def _takes_statistics(self) -> bool:
        """Is the batch normalized by its own statistics? In training, and where none are kept."""
        return self.training or (self.running_mean is None and self.running_var is None)

    def _by_running_statistics(
        self, input: Tensor, activation: Activation | None, residual: Tensor | None
    ) -> Tensor:
        if functional.torch_itself(input, self.backend):
            verify.residual(input, residual)
            return native.finish(self._through_torch(input), activation, residual)
        assert self.running_mean is not None
        assert self.running_var is not None
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

    def _through_torch(self, input: Tensor) -> Tensor:
        """What torch's layer does, for tools that know torch's functions only."""
        if not (self.training and self.track_running_stats and self.momentum is None):
            y: Tensor = _TorchBatchNorm.forward(self, input)
            return y
        # torch asks `num_batches_tracked` for its value here, which no compiler can wait for.
        y, mean, variance = native.batch_norm_once(input, self.weight, self.bias, self.eps)
        self._take(mean, variance, input)
        return y

    def _take(self, mean: Tensor | None, variance: Tensor | None, input: Tensor) -> None:
        """Keep the statistics of a batch, and move the running ones towards them."""
        count = input.shape[0] * input.shape[2:].numel()
        if mean is None or variance is None or count == 0:
            self._track(None, None)
            return
        self._keep(input, mean, variance)
        self._track(mean, variance * (count / max(count - 1, 1)))

    @torch.no_grad()
    def _track(self, mean: Tensor | None, unbiased: Tensor | None) -> None:
        """Count a batch, and move the running statistics towards its own, where it has any."""
        if not (self.training and self.track_running_stats):
            return
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        if mean is not None and unbiased is not None:
            move(self.running_mean, mean, self._factor())
            move(self.running_var, unbiased, self._factor())

    def _factor(self) -> float | Tensor:
        """Weight of the new batch; the average of all batches is counted on the device, without a wait."""
        if self.momentum is not None:
            return self.momentum
        return 0.0 if self.num_batches_tracked is None else 1.0 / self.num_batches_tracked.double()


def move(running: Tensor | None, value: Tensor, factor: float | Tensor) -> None:
    """`running <- (1 - factor) * running + factor * value`, of half buffers in the type of the value."""
    if running is None:
        return
    target = value.to(running.device)
    if isinstance(factor, Tensor):
        factor = factor.to(device=running.device, dtype=target.dtype)
    if target.dtype == running.dtype:
        running.lerp_(target, factor)
    else:
        running.copy_(torch.lerp(running.to(target.dtype), target, factor))


class _Direct(_BatchNorm):
    """Those that are torch's layers of the same name in all that they compute."""

    def _direct(self, input: Tensor, /) -> Tensor | None:
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        return direct.batch_norm(self, input)


class BatchNorm1d(_Direct, nn.BatchNorm1d):
    """BatchNorm of inputs `(N, C)` or `(N, C, L)`; its page is that of `_BatchNorm`, above in this module."""


class BatchNorm2d(_Direct, nn.BatchNorm2d):
    """BatchNorm of inputs `(N, C, H, W)`; its page is that of `_BatchNorm`, above in this module."""


class BatchNorm3d(_Direct, nn.BatchNorm3d):
    """BatchNorm of inputs `(N, C, D, H, W)`; its page is that of `_BatchNorm`, above in this module."""
