"""What converters of norms lose: the same models through opacus, torch, timm and normdoctor.

    python benchmarks/converters.py                      the table
    python benchmarks/converters.py --zoo timm torchvision [--only REGEX] [--share 0/4]

Tools that are not installed are left out (opacus 1.6 needs `opt_einsum`). Each row is a behaviour, each cell
what became of it: `kept`, `refused` with the reason below the table, `raises`, or what was lost. With
`--zoo`, whole families of models: torch's norms to ours and back, folding, frozen and back, sync and back.
"""

from __future__ import annotations

import argparse
import copy
import re
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import normdoctor
from normdoctor.errors import NormDoctorError

X = torch.randn(4, 8, 6, 6, generator=torch.Generator().manual_seed(0))
FLAT = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))


class NormAct(nn.BatchNorm2d):
    """A BatchNorm with an activation, as timm's BatchNormAct2d."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.drop = nn.Identity()
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        return self.act(self.drop(super().forward(x)))


class Alias(nn.Module):
    """One norm under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.BatchNorm2d(8)
        self.b = self.a

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        return self.b(self.a(x).relu())


class Functional(nn.Module):
    """BatchNorm as a call of a function, beside a standardized weight, which is none."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(8))
        self.register_buffer("var", torch.ones(8))
        self.weight = nn.Parameter(torch.randn(8, 8, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        weight = F.batch_norm(self.weight.reshape(1, 8, -1), None, None, training=True).view_as(self.weight)
        y = F.conv2d(x, weight)
        return F.batch_norm(y, self.mean, self.var, training=self.training)


class TwoNorms(nn.Module):
    """One convolution that is called twice, each time in front of another BatchNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3)
        self.bn1, self.bn2 = nn.BatchNorm2d(8), nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        """Run."""
        return self.bn1(self.conv(x)) - 2 * self.bn2(self.conv(x))


def randomized(model: nn.Module) -> nn.Module:
    """Norms as after training."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        for name in ("weight", "bias", "running_mean", "running_var"):
            value = getattr(module, name, None)
            if isinstance(value, Tensor) and value.dim() == 1:
                value.data = torch.rand(value.shape, generator=generator, dtype=value.dtype) + 0.5
    return model


def conv_norm(norm: nn.Module | None = None) -> nn.Module:
    """A convolution and a norm."""
    return randomized(nn.Sequential(nn.Conv2d(8, 8, 3), norm or nn.BatchNorm2d(8, eps=1e-3, momentum=0.3)))


def norm_of(model: nn.Module) -> Any:
    """The norm of `conv_norm`."""
    return model[1]  # type: ignore[index]


@dataclass(frozen=True)
class Row:
    """A behaviour: the model, and `judge(before, after, x)`, which says what was lost."""

    name: str
    build: Callable[[], nn.Module]
    judge: Callable[[nn.Module, nn.Module], str]
    fold: bool = False
    x: Tensor = X


def said(fine: bool, otherwise: str) -> str:
    """Nothing, or what was lost."""
    return "" if fine else otherwise


def same_values(before: Any, after: Any) -> str:
    """Are scale and shift the same?"""
    old, new = norm_of(before), norm_of(after)
    fine = torch.equal(old.weight, new.weight) and torch.equal(old.bias, new.bias)
    return said(fine, "scale and shift reset")


def settings(before: Any, after: Any) -> str:
    """Are eps and momentum the same?"""
    old, new = norm_of(before), norm_of(after)
    if new.eps != old.eps:
        return "eps reset"
    return said(getattr(new, "momentum", old.momentum) == old.momentum, "momentum reset")


def replaced(before: Any, after: Any) -> str:
    """Was the layer replaced at all?"""
    return said(type(norm_of(after)) is not type(norm_of(before)), "left as it was")


def hooked() -> nn.Module:
    """With a hook on the norm."""
    model = conv_norm()
    norm_of(model).register_forward_hook(count)
    return model


CALLS: list[int] = []


def count(*_: Any) -> None:
    """Count a call."""
    CALLS.append(1)


def hooks(before: Any, after: Any) -> str:
    """Does the hook run once?"""
    CALLS.clear()
    after(X)
    return said(len(CALLS) == 1, f"the hook ran {len(CALLS)} times")


def local_hook() -> nn.Module:
    """With a hook that cannot be pickled."""
    model = conv_norm()
    model[0].register_forward_hook(lambda *_: None)  # type: ignore[operator,union-attr]
    return model


def activation(before: Any, after: Any) -> str:
    """Is the activation of the subclass still there?"""
    if type(norm_of(after)) is type(norm_of(before)):
        return "left as it was"
    lowest = after.eval()(X).min().item()  # of SiLU -0.28
    return said(lowest > -0.3, "activation lost")


def flags(before: Any, after: Any) -> str:
    """Do frozen parameters stay frozen?"""
    if type(norm_of(after)) is type(norm_of(before)):
        return "left as it was"
    return said(all(not p.requires_grad for p in norm_of(after).parameters()), "trains again")


def frozen() -> nn.Module:
    """With parameters that do not train."""
    model = conv_norm()
    norm_of(model).requires_grad_(False)
    return model


def one_object(before: Any, after: Any) -> str:
    """Are both names one layer?"""
    if isinstance(after.a, nn.BatchNorm2d) and type(after.a) is nn.BatchNorm2d:
        return "left as it was"
    return said(after.a is after.b, "two layers")


def alive(before: Any, after: Any) -> str:
    """Do outputs depend on the input?"""
    with torch.no_grad():
        y = after.eval()(FLAT)
    return said(bool((y - y[:1]).abs().max() > 1e-3), "the same output for every input")


def tracked(before: Any, after: Any) -> str:
    """Does the optimizer own every parameter that trains?"""
    held = {id(p) for group in OPTIMIZER[0].param_groups for p in group["params"]}
    fine = all(id(p) in held for p in after.parameters() if p.requires_grad)
    return said(fine, "parameters that no optimizer trains")


OPTIMIZER: list[torch.optim.Optimizer] = []


def optimized() -> nn.Module:
    """With an optimizer made before."""
    model = conv_norm()
    OPTIMIZER[:] = [torch.optim.SGD(model.parameters(), lr=0.1)]
    return model


def attribute(before: Any, after: Any) -> str:
    """Is an attribute of the user's still there?"""
    return said(getattr(norm_of(after), "tag", None) == "stem", "attribute lost")


def tagged() -> nn.Module:
    """With an attribute of the user's."""
    model = conv_norm()
    norm_of(model).tag = "stem"
    return model


def in_eval() -> nn.Module:
    """With the norm alone in eval mode."""
    model = conv_norm()
    norm_of(model).eval()
    return model


def outputs(before: Any, after: Any, x: Tensor = X) -> str:
    """What folding must keep."""
    with torch.no_grad():
        a, b = before.eval()(x), after.eval()(x)
    return said(torch.allclose(a, b, atol=1e-4, rtol=1e-4), f"outputs off by {(a - b).abs().max():.2g}")


def folded(before: Any, after: Any) -> str:
    """Are outputs the same, without norms?"""
    left = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in after.modules())
    return outputs(before, after) or said(not left, "left as it was")


def listed(before: Any, after: Any) -> str:
    """Is the call reported?"""
    return "not seen"  # by a tool that returns a model; ours says so in `refused`


def sequential_3d() -> nn.Module:
    """A norm over the wrong axis of a linear layer."""
    return randomized(nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8)))


def seen_conv() -> nn.Module:
    """With a hook on the convolution."""
    model = conv_norm()
    model[0].register_forward_hook(see)  # type: ignore[operator,union-attr]
    return model


SEEN: list[Tensor] = []


def see(module: nn.Module, args: Any, output: Tensor) -> None:
    """Keep what the hook sees."""
    SEEN.append(output)


def what_hooks_see(before: Any, after: Any) -> str:
    """A hook on the convolution is somebody who reads its output."""
    SEEN.clear()
    lost = outputs(before, after)
    return lost or said(len(SEEN) > 1 and torch.allclose(SEEN[0], SEEN[1]), "the hook sees other values")


DEEP = torch.randn(4, 8, 5, generator=torch.Generator().manual_seed(2))

ROWS = (
    Row("scale and shift", conv_norm, same_values),
    Row("eps and momentum", conv_norm, settings),
    Row("dtype", lambda: conv_norm().double(), lambda b, a: said(
        all(t.dtype == torch.float64 for t in (*a.parameters(), *norm_of(a).buffers())
            if t.is_floating_point()), "float32 now")),
    Row("hooks", hooked, hooks),
    Row("Python attributes", tagged, attribute),
    Row("mode of one layer", in_eval, lambda b, a: said(not norm_of(a).training, "in train mode now")),
    Row("subclass with an activation", lambda: conv_norm(NormAct(8)), activation),
    Row("frozen parameters", frozen, flags),
    Row("affine=False", lambda: conv_norm(nn.BatchNorm2d(8, affine=False)), replaced),
    Row("bias=None", lambda: conv_norm(nn.BatchNorm2d(8, bias=False)), replaced),
    Row("track_running_stats=False", lambda: conv_norm(nn.BatchNorm2d(8, track_running_stats=False)),
        replaced),
    Row("one norm under two names", Alias, one_object),
    Row("BatchNorm1d of (N, C)", lambda: randomized(nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8))), alive,
        x=FLAT),
    Row("7 channels", lambda: randomized(nn.Sequential(nn.Conv2d(8, 7, 3), nn.BatchNorm2d(7))), replaced),
    Row("optimizer of before", optimized, tracked),
    Row("a lambda as a hook", local_hook, replaced),
    Row("lazy BatchNorm", lambda: nn.Sequential(nn.Conv2d(8, 8, 3), nn.LazyBatchNorm2d()), lambda b, a: said(
        getattr(norm_of(a), "num_features", 1) != 0, "0 channels")),
    Row("InstanceNorm beside it", lambda: conv_norm(nn.InstanceNorm2d(8)), lambda b, a: said(
        isinstance(norm_of(a), nn.InstanceNorm2d), "converted too")),
    Row("F.batch_norm in a forward", Functional, listed),
    Row("fold: convolution", conv_norm, folded, fold=True),
    Row("fold: grouped", lambda: randomized(nn.Sequential(nn.Conv2d(8, 8, 3, groups=4), nn.BatchNorm2d(8))),
        folded, fold=True),
    Row("fold: transposed", lambda: randomized(
        nn.Sequential(nn.ConvTranspose2d(8, 8, 3, groups=2), nn.BatchNorm2d(8))), folded, fold=True),
    Row("fold: conv of two norms", lambda: randomized(TwoNorms()), outputs, fold=True),
    Row("fold: Linear of 3 dimensions", sequential_3d, lambda b, a: outputs(b, a, DEEP), fold=True, x=DEEP),
    Row("fold: affine=False", lambda: randomized(
        nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8, affine=False))),
        lambda b, a: outputs(b, a, FLAT), fold=True, x=FLAT),
    Row("fold: hook on the convolution", seen_conv, what_hooks_see, fold=True),
    Row("fold: weight_norm", lambda: randomized(nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 3)), nn.BatchNorm2d(8))), outputs, fold=True),
)  # fmt: skip

#: A tool takes a model and an input, and returns the converted model; ours also what it refused.
Tool = Callable[[nn.Module, Tensor], nn.Module]


class RefusedError(Exception):
    """A tool said why it does not do it."""


def opacus() -> dict[bool, Tool]:
    """BatchNorm to GroupNorm."""
    from opacus.validators import ModuleValidator

    return {False: lambda model, x: ModuleValidator.fix(model)}


def torch_own() -> dict[bool, Tool]:
    """BatchNorm to SyncBatchNorm, and folding."""
    from torch.fx.experimental.optimization import fuse

    return {
        False: lambda model, x: nn.SyncBatchNorm.convert_sync_batchnorm(model),
        True: lambda model, x: fuse(model.eval()),
    }


def timm() -> dict[bool, Tool]:
    """BatchNorm to FrozenBatchNorm."""
    shim()
    from timm.layers import freeze_batch_norm_2d

    return {False: lambda model, x: freeze_batch_norm_2d(model)}


def ours(spec: str) -> Tool:
    """The model after `spec`; raises RefusedError with the reason where a layer was refused."""

    def run(model: nn.Module, x: Tensor) -> nn.Module:
        held = {id(p) for group in (OPTIMIZER[0].param_groups if OPTIMIZER else []) for p in group["params"]}
        owned = any(id(p) in held for p in model.parameters())
        inputs = x.to(next(model.parameters()).dtype)
        try:
            result = normdoctor.convert(
                model, spec, inputs=inputs, inplace=owned, optimizer=OPTIMIZER[0] if owned else None
            )
        except NormDoctorError as error:
            raise RefusedError(error.message) from error
        if result.refused:
            raise RefusedError(result.refused[0].reason)
        return result.model

    return run


def cell(row: Row, tool: Tool) -> tuple[str, str]:
    """What becomes of a behaviour, and the reason where it was refused."""
    torch.manual_seed(0)
    OPTIMIZER.clear()
    model = row.build()
    before = copy.deepcopy(model) if row.name != "lazy BatchNorm" else model
    try:
        after = tool(model, row.x)
    except RefusedError as reason:
        return "refused", str(reason)
    except Exception as error:  # of another tool
        return f"raises {type(error).__name__}", ""
    try:
        return row.judge(before, after) or "kept", ""
    except Exception as error:
        return f"broken: {type(error).__name__}", ""


def tools() -> dict[str, dict[bool, Tool]]:
    """The tools that are installed."""
    found: dict[str, dict[bool, Tool]] = {}
    for name, load in (("opacus", opacus), ("torch", torch_own), ("timm", timm)):
        try:
            found[name] = load()
        except Exception as error:
            print(f"{name} is left out: {type(error).__name__}: {error}")
    return found


OURS = ("batch->group", "batch->sync", "batch->frozen")


def table() -> None:
    """Print it."""
    peers = tools()
    reasons = []
    print(f"{'':32}" + "".join(f"{name:34}" for name in (*peers, "normdoctor")))
    for row in ROWS:
        cells = [cell(row, peer[row.fold])[0] if row.fold in peer else "-" for peer in peers.values()]
        results = {spec: cell(row, ours(spec)) for spec in (("batch->none",) if row.fold else OURS)}
        words = sorted({word for word, _ in results.values()})
        reasons += [(row.name, spec, why) for spec, (_, why) in results.items() if why]
        print(f"{row.name:32}" + "".join(f"{text[:32]:34}" for text in (*cells, ", ".join(words))))
    print()
    for name, spec, why in reasons:
        print(f"{name}: {spec} refused: {why}")


def shim() -> None:
    """Make torchvision importable."""
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from models import _shim

    _shim()


def zoo(names: list[str], options: argparse.Namespace) -> int:
    """Whole families; returns how many models failed."""
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from models import ZOOS

    part, parts = (int(number) for number in options.share.split("/"))
    failures = 0
    for name in names:
        entries = [entry for entry in ZOOS[name]() if re.search(options.only, entry.name)]
        for entry in entries[part::parts]:
            start = time.perf_counter()
            told = sweep(entry, options.largest, options.side)
            failures += any("FAILS" in one for one in told)
            print(f"{entry.name} ({time.perf_counter() - start:.0f} s): {'; '.join(told)}", flush=True)
    return failures


def sweep(entry: Any, largest: float, side: int) -> list[str]:
    """One model through the exact conversions and back."""
    torch.manual_seed(0)
    try:
        light = on_meta(entry)
        size = sum(parameter.numel() for parameter in light.parameters())
        if size > largest * 1e6:
            return [f"left out: {size / 1e6:.0f} million parameters"]
        model = randomized_like(entry.build())
        x = cut(light, entry.inputs(model), side)
    except Exception as error:
        return [f"not built: {type(error).__name__}: {str(error)[:80]}"]
    found = []
    specs = [("torch->own", "own->torch")]
    if any(isinstance(one, nn.modules.batchnorm._BatchNorm) for one in model.modules()):
        specs += [("batch->none", ""), ("batch->frozen", "frozen->batch"), ("batch->sync", "sync->batch")]
    for there, back in specs:
        try:
            found.append(round_trip(model, x, there, back))
        except NormDoctorError as error:
            found.append(f"{there} FAILS: {error.message[:160]}")
    return found


def on_meta(entry: Any) -> nn.Module:
    """The model without memory, where it can be built so."""
    try:
        with torch.device("meta"):
            return entry.build()
    except Exception:  # it computes while it is built
        return entry.build().to("meta")


def cut(light: nn.Module, x: Any, side: int) -> Any:
    """The images cut to `side`, where the model (on meta) takes them so."""
    if not side or not isinstance(x, Tensor) or x.dim() != 4 or x.shape[-1] <= side:
        return x
    small = x[..., :side, :side].contiguous()
    try:
        light(small.to("meta"))
    except Exception:  # made for one size
        return x
    return small


def randomized_like(model: nn.Module) -> nn.Module:
    """Running statistics and scales as training may leave them, so that folding has something to do."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.7, 1.4, generator=generator)
            if module.weight is not None:
                module.weight.data.uniform_(0.7, 1.3, generator=generator)
    return model


def round_trip(model: nn.Module, x: Any, there: str, back: str) -> str:
    """One conversion, and the way back."""
    result = normdoctor.convert(model, there, inputs=x)
    modes = [mode for mode in result.exact_in if mode in result.differences]
    errors = " ".join(f"{mode} {result.differences[mode].relative:.1e}" for mode in modes)
    text = f"{there} {len(result.replaced)}/{len(result.replaced) + len(result.refused)} {errors}"
    if result.refused:
        text += f" (first refused: {result.refused[0].path}: {result.refused[0].reason})"
    if not back or not result.replaced:
        return text
    returned = normdoctor.convert(result.model, back, inputs=x)
    old, new = model.state_dict(), returned.model.state_dict()
    same = list(old) == list(new) and all(torch.equal(old[key], new[key]) for key in old)
    kinds = [type(one) for one in model.modules()] == [type(one) for one in returned.model.modules()]
    return text if same and kinds else f"{text} FAILS: {back} is no way back"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--zoo", nargs="+", default=[])
    parser.add_argument("--only", default="")
    parser.add_argument("--largest", type=float, default=30, help="millions of parameters of a model")
    parser.add_argument(
        "--side", type=int, default=0, help="cut images to this side where the model takes it"
    )
    parser.add_argument("--share", default="0/1", help="0/4: the first of four shares of the models")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.zoo:
        return min(zoo(options.zoo, options), 1)
    table()
    return 0


if __name__ == "__main__":
    sys.exit(main())
