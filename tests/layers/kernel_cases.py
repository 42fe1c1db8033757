"""Random cases of the Triton kernels against the formulas: in Triton's interpreter, or on a card.

TRITON_INTERPRET=1 python tests/layers/kernel_cases.py [number of cases] [first seed]
"""

import random
import sys

import torch

from normdoctor.layers import functional

ACTIVATIONS = [None, "relu", "leaky_relu", "silu", "gelu", "gelu_tanh"]
TOLERANCE = {torch.float32: 2e-5, torch.bfloat16: 1e-2, torch.float16: 1.5e-3}
KINDS = ["batch_norm", "group_norm", "instance_norm", "channel_affine", "layer_norm", "rms_norm"]


def laid_out(values, how, chance):
    """The same values in another memory layout."""
    if how == "last":
        return values.movedim(1, -1).contiguous().movedim(-1, 1)
    if how == "gaps":
        wide = torch.zeros(*values.shape[:-1], 2 * values.shape[-1], dtype=values.dtype, device=values.device)
        wide[..., ::2] = values
        return wide[..., ::2]
    if how == "permuted":
        order = chance.sample(range(values.dim()), values.dim())
        return values.permute(order).contiguous().permute([order.index(i) for i in range(values.dim())])
    return values


class Case:
    """One norm of one input, drawn from a seed."""

    def __init__(self, seed, device):
        chance = random.Random(seed)
        generator = torch.Generator().manual_seed(seed)

        def made(*shape, dtype=torch.float32, mean=0.0):
            return (torch.randn(shape, generator=generator) + mean).to(device, dtype).requires_grad_()

        self.kind = KINDS[seed % len(KINDS)]
        self.dtype = chance.choice(list(TOLERANCE))
        self.activation = chance.choice(ACTIVATIONS)
        self.groups = chance.choice([1, 2, 3])
        rank = chance.choice([2, 3, 4, 5])
        if self.kind == "instance_norm":
            rank = max(rank, 3)
        longest = {2: 300, 3: 300, 4: 17, 5: 6}[rank]
        channels = self.groups * chance.choice([1, 2, 5])
        rest = [chance.randint(1, longest) for _ in range(rank - 2)]
        shape = (chance.choice([1, 2, 3]), channels, *rest)
        if "rms" in self.kind or "layer" in self.kind:
            shape = (chance.choice([1, 3]), chance.randint(1, 5), chance.choice([1, 7, 64, 300, 1500]))
            self.normalized = shape[-chance.choice([1, 1, 2]) :]
        elif shape[0] == 1 and self.kind != "instance_norm":
            shape = (2, *shape[1:])
        if self.kind == "instance_norm" and all(size == 1 for size in shape[2:]):
            shape = (*shape[:2], 4, *shape[3:])
        self.shape = shape
        x = made(*shape, dtype=self.dtype, mean=chance.choice([0.0, 3.0]))
        self.how = chance.choice(["plain", "last", "gaps", "permuted"])
        self.x = laid_out(x.detach(), self.how, chance).requires_grad_()
        size = self.normalized if hasattr(self, "normalized") else (channels,)
        wide = chance.random() < 0.5 and "layer" not in self.kind and "rms" not in self.kind
        affine = chance.choice(["none", "weight", "both"])
        parameters = torch.float32 if wide else self.dtype
        self.weight = made(*size, dtype=parameters) if affine != "none" else None
        self.bias = made(*size, dtype=parameters) if affine == "both" and self.kind != "rms_norm" else None
        self.residual = made(*shape, dtype=self.dtype) if chance.random() < 0.4 else None
        self.grad = laid_out(
            made(*shape, dtype=self.dtype).detach(), chance.choice(["plain", "last"]), chance
        )

    def __repr__(self):
        return f"{self.kind} {self.shape} {self.dtype} {self.how} {self.activation}"

    @property
    def inputs(self):
        return [one for one in (self.x, self.weight, self.bias, self.residual) if one is not None]

    def run(self, backend, wide=False):
        """Results and statistics."""

        def cast(one):
            return one.double() if wide and one is not None else one

        x, weight, bias, residual = (cast(one) for one in (self.x, self.weight, self.bias, self.residual))
        rest = (self.activation, residual)
        if self.kind == "channel_affine":
            if backend == "triton":
                return (functional.fast.implementation(self.kind, x, backend)(x, weight, bias, *rest),)
            return (functional.reference.channel_affine(x, weight, bias, *rest),)
        function = getattr(functional, self.kind)
        if self.kind == "rms_norm":
            return function(x, self.normalized, weight, 1e-3, *rest, backend=backend)
        first = {"layer_norm": [getattr(self, "normalized", None)], "group_norm": [self.groups]}
        return function(x, *first.get(self.kind, []), weight, bias, 1e-3, *rest, backend=backend)


def check(case):
    """Values, statistics, gradients, and that a second run gives the same bits."""
    found, again, expected = case.run("triton"), case.run("triton"), case.run("reference", wide=True)
    tolerance = TOLERANCE[case.dtype]
    assert found[0].dtype == case.dtype
    assert torch.equal(found[0], again[0]), "not deterministic"
    torch.testing.assert_close(found[0].double(), expected[0], rtol=tolerance, atol=tolerance)
    for one, other in zip(found[1:], expected[1:], strict=True):
        assert one.shape == other.shape
        assert one.dtype == torch.float32
        assert not one.requires_grad
        torch.testing.assert_close(one.double(), other, rtol=1e-4, atol=1e-5)
    grads = torch.autograd.grad(found[0], case.inputs, case.grad)
    repeated = torch.autograd.grad(again[0], case.inputs, case.grad)
    right = torch.autograd.grad(expected[0], case.inputs, case.grad.double())
    for one, twice, other in zip(grads, repeated, right, strict=True):
        assert torch.equal(one, twice), "gradients are not deterministic"
        scale = float(other.abs().max().clamp_min(1))
        torch.testing.assert_close(
            one.double(), other.double(), rtol=5 * tolerance, atol=5 * tolerance * scale
        )


def main(number, first, device):
    for seed in range(first, first + number):
        case = Case(seed, device)
        try:
            check(case)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {case}") from error
    print("agreed", number)


if __name__ == "__main__":
    main(*(int(one) for one in sys.argv[1:3]), sys.argv[3] if len(sys.argv) > 3 else "cpu")
