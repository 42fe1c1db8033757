"""Models of timm, torchvision and transformers: recorded, replayed bit for bit, left alone, not blamed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import normdoctor
from normdoctor.tracing.inference import infer
from normdoctor.tracing.recording import input_tensors, output_tensors, record

pytestmark = pytest.mark.zoo

TIMM = (
    "resnet10t efficientvit_b0 convnext_atto levit_128s mobilenetv3_small_050 vit_tiny_patch16_224 "
    "swin_tiny_patch4_window7_224 densenet121 ghostnet_050 nf_resnet26 xcit_nano_12_p16_224 inception_v3 "
    "caformer_s18 regnetx_002 mixer_s32_224 hrnet_w18_small"
).split()
TORCHVISION = "alexnet vgg11_bn googlenet squeezenet1_1 shufflenet_v2_x0_5 mnasnet0_5 convnext_tiny".split()
#: type -> settings that make it small
TRANSFORMERS: dict[str, dict[str, Any]] = (
    {
        kind: {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        for kind in "bert roberta albert electra vit deit".split()
    }
    | {
        kind: {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "intermediate_size": 64,
            "vocab_size": 1000,
        }
        for kind in "llama mistral qwen2 gemma2".split()
    }
    | {
        "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 2},
        "t5": {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2},
        "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
        "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 2},
        "convnext": {},
        "clip": {},
    }
)
#: True and harmless: conv biases before BatchNorm, and norms that are written by hand.
ALLOWED = {"ND101", "ND901"}


def timm_model(name: str) -> nn.Module:
    return pytest.importorskip("timm").create_model(name)


def torchvision_model(name: str) -> nn.Module:
    return pytest.importorskip("torchvision").models.get_model(name, weights=None)


def transformers_model(name: str) -> nn.Module:
    library = pytest.importorskip("transformers")
    config = library.AutoConfig.for_model(name, **TRANSFORMERS[name])
    return library.AutoModel.from_config(config, attn_implementation="eager")


MODELS: list[tuple[Callable[[str], nn.Module], str]] = [
    *((timm_model, name) for name in TIMM),
    *((torchvision_model, name) for name in TORCHVISION),
    *((transformers_model, name) for name in TRANSFORMERS),
]


@pytest.fixture(params=MODELS, ids=lambda pair: pair[1])
def model(request: pytest.FixtureRequest) -> nn.Module:
    build, name = request.param
    torch.manual_seed(0)
    with contextlib.suppress(ImportError):
        __import__("transformers").logging.set_verbosity_error()
    return build(name)


@pytest.mark.filterwarnings("default")
def test_recorded_replayed_and_left_alone(model: nn.Module) -> None:
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    rng = torch.random.get_rng_state()

    report = normdoctor.check(model)

    assert not report.problems
    assert report.targets[0].recorded == "meta"
    assert {finding.code for finding in report.findings} <= ALLOWED
    assert torch.equal(torch.random.get_rng_state(), rng)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())

    model.eval()
    recording = record(model, infer(model).example)
    example = recording.example
    with torch.no_grad():
        wanted = [tensor for _, tensor in output_tensors(model(*example.args, **example.kwargs))]
        got = recording.graph_module()(*input_tensors(example))
    assert len(got) == len(wanted)
    assert all(
        torch.equal(one.nan_to_num(), other.nan_to_num()) for one, other in zip(wanted, got, strict=True)
    )
