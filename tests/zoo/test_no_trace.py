"""Real models are left bit for bit as they were, by a check with data and by a watch, however they end."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as modules_of_torch
from torch.optim import optimizer as optimizers_of_torch
from torch.overrides import _get_current_function_mode_stack
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack

import normdoctor
from normdoctor.errors import NormDoctorError

pytestmark = pytest.mark.zoo

IMAGE = (2, 3, 64, 64)
TIMM: dict[str, dict[str, Any]] = {
    "resnet10t": {},
    "efficientvit_b0": {},
    "convnext_atto": {},
    "levit_128s": {"img_size": 64},
    "mobilenetv3_small_050": {},
    "vit_tiny_patch16_224": {"img_size": 64, "depth": 4, "drop_path_rate": 0.1},
    "resnetv2_50": {"layers": [1, 1, 1, 1], "channels": [32, 64, 96, 128]},
    "ghostnet_050": {},
    "xcit_nano_12_p16_224": {},
    "regnetx_002": {},
}
TORCHVISION = "shufflenet_v2_x0_5 googlenet squeezenet1_1 mnasnet0_5".split()
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
ROTARY = {"num_key_value_heads": 1, "head_dim": 16, "vocab_size": 1000}
WORDS = {"vocab_size": 500, "bos_token_id": 0, "eos_token_id": 0}
TRANSFORMERS: dict[str, dict[str, Any]] = {
    "bert": SMALL,
    "llama": {**SMALL, **ROTARY},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2, **WORDS},
    "mixtral": {**SMALL, **ROTARY, "num_local_experts": 4},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 2, **WORDS},
    "convnext": {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]},
}
NAMES = [*TIMM, *TORCHVISION, *TRANSFORMERS]
#: The contexts in which somebody may call: each model in one of them.
CONTEXTS: dict[str, Callable[[], Any]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "enable_grad": torch.enable_grad,
}


def built(name: str) -> tuple[nn.Module, Tensor]:
    """A small model with gradients from a backward, and a batch for it."""
    torch.manual_seed(0)
    batch = torch.randn(IMAGE)
    if name in TORCHVISION:
        settings = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
        model = pytest.importorskip("torchvision").models.get_model(name, weights=None, **settings)
    elif name in TIMM:
        model = pytest.importorskip("timm").create_model(name, **TIMM[name])
    else:
        library = pytest.importorskip("transformers")
        config = library.AutoConfig.for_model(name, **TRANSFORMERS[name])
        model = library.AutoModel.from_config(config, attn_implementation="eager")
        batch = batch if name == "convnext" else torch.randint(500, (2, 16))
    model.train()
    total(model(batch)).backward()
    frozen = next(model.parameters())
    frozen.requires_grad_(False)
    first = next((one for one in model.modules() if isinstance(one, nn.BatchNorm2d)), None)
    if first is not None:
        first.eval()  # one norm in another mode than the rest
    return model, batch


def total(output: Any) -> Tensor:
    """A loss."""
    found = output if isinstance(output, Tensor) else output[0]
    loss: Tensor = found.float().square().mean()
    return loss


def bits(tensor: Tensor) -> Any:
    """What a tensor is and holds."""
    held = tensor.detach()
    said = (id(tensor), held.data_ptr(), tuple(held.shape), held.stride(), held.dtype, tensor.requires_grad)
    values = held.contiguous().flatten().view(torch.uint8).numpy().tobytes() if held.numel() else b""
    late = getattr(tensor, "_post_accumulate_grad_hooks", None)
    hooks = (len(tensor._backward_hooks or ()), len(late or ()))
    grad = bits(tensor.grad) if tensor.is_leaf and tensor.grad is not None else None
    return said, hash(values), hooks, grad, held._version


def plain(value: Any, depth: int = 4) -> Any:
    """Something that is equal only where the attributes of a module are the same."""
    if isinstance(value, Tensor):
        return bits(value) if value.is_leaf else id(value)
    if isinstance(value, dict):
        return [(key, plain(one, depth - 1)) for key, one in value.items()]
    if isinstance(value, list | tuple) and depth:
        return [plain(one, depth - 1) for one in value]
    return (id(value), repr(value) if isinstance(value, int | float | str | bool | None) else "")


def picture(model: nn.Module, batch: Tensor) -> Any:
    """The model and the process."""
    parts = {path: (id(one), type(one), plain(vars(one))) for path, one in model.named_modules()}
    numpy_state = np.random.get_state()
    hooks = (
        modules_of_torch._global_forward_hooks, modules_of_torch._global_forward_pre_hooks,
        modules_of_torch._global_backward_hooks, optimizers_of_torch._global_optimizer_pre_hooks,
        optimizers_of_torch._global_optimizer_post_hooks,
    )  # fmt: skip
    process = {
        "torch": torch.get_rng_state().tolist(),
        "python": random.getstate(),
        "numpy": (numpy_state[1].tolist(), numpy_state[2:]),
        "grad": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "autocast": (torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")),
        "default": (torch.get_default_dtype(), torch.get_num_threads()),
        "backends": (torch.backends.cudnn.benchmark, torch.are_deterministic_algorithms_enabled()),
        "modes": (len(_get_current_function_mode_stack()), len(_get_current_dispatch_mode_stack())),
        "hooks": [list(one) for one in hooks],
        "batch": bits(batch),
    }
    return parts, process


def differences(before: Any, after: Any) -> list[str]:
    """What is not as it was, in words."""
    found = [f"process: {key}" for key in before[1] if before[1][key] != after[1][key]]
    found += [f"module {path!r}" for path in before[0].keys() ^ after[0].keys()]
    for path in before[0].keys() & after[0].keys():
        (*was, old), (*now, new) = before[0][path], after[0][path]
        if was != now:
            found.append(f"module {path!r} is another one")
        changed = [one[0] for one, other in zip(old, new, strict=False) if one != other]
        if old != new:
            found.append(f"{path or 'model'}: {changed or [key for key, _ in new]}")
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_check_with_data(name: str) -> None:
    model, batch = built(name)
    data = [batch, (batch.clone(), 1)]
    for training in (True, False):
        if not training:
            model.eval()
        before = picture(model, batch)
        report = normdoctor.check(model, batch, data=data)
        assert any("measured over 2 batches" in note for note in report.targets[0].notes)
        assert "error" not in report.counts()
        assert differences(before, picture(model, batch)) == []


class Bomb:
    """A hook of the user's own, that raises in the middle of a forward once it is armed."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.left = -1

    def armed_after(self, batch: Tensor) -> Iterator[Tensor]:
        """Two batches; the forward on the second one raises."""
        yield batch
        self.left = 1
        yield batch

    def __call__(self, module: nn.Module, args: Any) -> None:
        """Run in front of the forward of a leaf."""
        self.left -= 1
        if self.left == 0:
            raise self.error


@contextlib.contextmanager
def mined(model: nn.Module, batch: Tensor, error: BaseException) -> Iterator[Bomb]:
    """The model, in eval mode, with a hook on the leaf in its middle."""
    ran: list[nn.Module] = []
    leaves = [one for one in model.modules() if not list(one.children())]
    handles = [one.register_forward_pre_hook(lambda module, args: ran.append(module)) for one in leaves]
    with torch.no_grad():
        model.eval()(batch)  # also fills what a model caches in eval mode
    for handle in handles:
        handle.remove()
    bomb = Bomb(error)
    handle = ran[len(ran) // 2].register_forward_pre_hook(bomb)
    try:
        yield bomb
    finally:
        handle.remove()


@pytest.mark.parametrize(("place", "name"), list(enumerate(NAMES)))
def test_what_raises_midway(place: int, name: str) -> None:
    model, batch = built(name)
    for training in (True, False):
        error = (RuntimeError("broken"), KeyboardInterrupt())[(place + training) % 2]
        with mined(model, batch, error) as bomb:
            in_eval = picture(model, batch)
            if training:
                model.train()
            before = picture(model, batch)
            assert (before != in_eval) == training
            with pytest.raises((NormDoctorError, KeyboardInterrupt)):
                normdoctor.check(model, data=bomb.armed_after(batch), select=["ND6", "ND7"])
            bomb.left = -1
            assert differences(before, picture(model, batch)) == []
            if training:
                continue  # from here on the model's own forward moves running statistics
            bomb.left = 1
            with pytest.raises(type(error)), normdoctor.watch(model, every=1, on_finding="ignore"):
                model(batch)
            assert differences(before, picture(model, batch)) == []


@pytest.mark.parametrize(("place", "name"), list(enumerate(NAMES)))
def test_in_a_context(place: int, name: str) -> None:
    model, batch = built(name)
    first, second = (list(CONTEXTS)[(place + more) % len(CONTEXTS)] for more in (0, 1))
    with CONTEXTS[first]():
        before = picture(model, batch)
        normdoctor.check(model, data=[batch, batch], select=["ND601", "ND608", "ND701"])
        assert differences(before, picture(model, batch)) == [], first
    model.eval()(batch)
    with CONTEXTS[second]():
        before = picture(model, batch)
        with normdoctor.watch(model, every=1, on_finding="ignore") as w:
            model(batch)
            w.step(1.0)
            w.measurements()
        assert differences(before, picture(model, batch)) == [], second


@pytest.mark.parametrize("name", NAMES)
def test_a_watch(name: str) -> None:
    """Attached and taken off; around a forward and a backward; with a report in the middle."""
    model, batch = built(name)
    before = picture(model, batch)
    with normdoctor.watch(model, every=1, on_finding="ignore"):
        pass
    assert differences(before, picture(model, batch)) == []
    twin, _ = built(name)
    results = []
    for one, watched in ((model, True), (twin, False)):
        one.zero_grad()
        torch.manual_seed(1)
        scope: Any = (
            normdoctor.watch(one, every=1, on_finding="ignore") if watched else contextlib.nullcontext()
        )
        with scope as w:
            for _ in range(2):
                total(one(batch)).backward()
                if w is not None:
                    w.step(1.0)
            if w is not None:
                w.report()
        grads = [None if p.grad is None else bits(p.grad)[1] for p in one.parameters()]
        state = [bits(value)[1] for value in one.state_dict().values()]
        hooks = [
            len(held)
            for module in one.modules()
            for held in (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
        ]
        tensor_hooks = [bits(p)[2] for p in one.parameters()]
        flags = [module.training for module in one.modules()]
        modules = [(type(module), sorted(vars(module))) for module in one.modules()]
        rng = torch.get_rng_state().tolist()
        results.append((grads, state, hooks, tensor_hooks, flags, modules, rng))
    for one, other in zip(*results, strict=True):
        assert one == other
