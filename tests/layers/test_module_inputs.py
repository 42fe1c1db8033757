"""torch's own inputs for its modules, valid and invalid, with our layers in torch's place."""

import copy
import pickle

import pytest
import torch
from torch.testing._internal.common_modules import ModuleErrorEnum, module_db

from .norms import BACKENDS, TWINS, assert_as_good, assert_buffers_equal, error, exact, run, scatter, twin

# Importing torch's test tools forbids to set global flags of the backends; other tests in this process do.
torch.backends.disable_global_flags.__globals__["__allow_nonbracketed_mutation_flag"] = True

INFOS = {info.module_cls.__name__: info for info in module_db if info.module_cls.__name__ in TWINS}


def test_all_of_torchs_norms_are_judged():
    theirs = {
        info.module_cls.__name__ for info in module_db if info.module_cls.__name__.endswith(("Norm", "d"))
    }
    norms = {name for name in theirs if "Norm" in name and not name.startswith("Lazy")}
    assert norms == set(TWINS) == set(INFOS)


def inputs(name, dtype, training=True, requires_grad=False):
    torch.manual_seed(0)
    info = INFOS[name]
    return info.module_inputs_func(
        info, device="cpu", dtype=dtype, requires_grad=requires_grad, training=training
    )


CASES = [
    pytest.param(name, number, id=f"{name}-{case.desc or 'plain'}")
    for name in INFOS
    for number, case in enumerate(inputs(name, torch.float32))
]


def build(cls, case, dtype=None, **options):
    layer = cls(*case.constructor_input.args, **case.constructor_input.kwargs, **options)
    return layer if dtype is None else layer.to(dtype)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("name", "number"), CASES)
def test_numbers(name, number, training, dtype):
    """Output, gradients and buffers over two steps, on every backend."""
    case = inputs(name, dtype, training)[number]
    (x,) = case.forward_input.args
    cls, torch_cls = TWINS[name]
    if name == "LocalResponseNorm" and dtype == torch.bfloat16:
        dtype, x = torch.float32, x.float()  # torch has no average pooling of it
    for backend in BACKENDS:
        own, theirs = build(cls, case, dtype, backend=backend), build(torch_cls, case, dtype)
        twin(own, theirs)
        own.train(training)
        theirs.train(training)
        for _ in range(2):
            seed = torch.randn_like(x)
            assert_as_good(run(own, x, seed), run(theirs, x, seed), exact(theirs, x, seed), dtype)
            assert_buffers_equal(own, theirs, dtype)


@pytest.mark.parametrize(
    ("name", "number"), [c for c in CASES if inputs(c.values[0], torch.float32)[c.values[1]].reference_fn]
)
def test_reference_functions(name, number):
    """Where torch's test has a formula of its own, we compute that."""
    case = inputs(name, torch.float32)[number]
    layer = scatter(build(TWINS[name][0], case))
    right = case.reference_fn(copy.deepcopy(layer), *case.forward_input.args)
    assert error(layer(*case.forward_input.args), right) < 1e-5


@pytest.mark.parametrize(("name", "number"), CASES)
def test_construction(name, number):
    """Device and type are taken; state, text and switches are torch's; copies and pickles work."""
    case = inputs(name, torch.float32)[number]
    cls, torch_cls = TWINS[name]
    own, theirs = build(cls, case), build(torch_cls, case)
    assert isinstance(own, torch_cls)
    assert own.extra_repr() == theirs.extra_repr()
    assert [(n, p.shape) for n, p in own.named_parameters()] == [
        (n, p.shape) for n, p in theirs.named_parameters()
    ]
    assert list(own.state_dict()) == list(theirs.state_dict())
    if list(theirs.state_dict()):
        made = build(cls, case, device="meta", dtype=torch.float64)
        assert all(v.is_meta and v.dtype in (torch.float64, torch.int64) for v in made.state_dict().values())
        made.to_empty(device="cpu").load_state_dict(theirs.double().state_dict())
    (x,) = case.forward_input.args
    y = own(x)
    for other in (copy.deepcopy(own), pickle.loads(pickle.dumps(own))):
        assert torch.equal(other.eval()(x), own.eval()(x))
        own.train()
    assert y.shape == x.shape


@pytest.mark.parametrize(("name", "number"), CASES)
def test_strided_inputs(name, number):
    """Inputs that are not contiguous give the same, and memory formats are kept."""
    case = inputs(name, torch.float64)[number]
    (x,) = case.forward_input.args
    layer = scatter(build(TWINS[name][0], case, torch.float64))
    right = copy.deepcopy(layer)(x)
    spread = torch.repeat_interleave(x, 2, dim=-1)[..., ::2]
    assert error(copy.deepcopy(layer)(spread), right) < 1e-12
    if x.dim() == 4 and x.numel() and not name.endswith("3d"):
        last = x.to(memory_format=torch.channels_last)
        y = layer(last)
        assert error(y, right) < 1e-12
        if not name.startswith(("Layer", "RMS", "Local")):
            assert y.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("name", "number"), CASES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients(name, number, backend):
    """gradcheck and gradgradcheck, in both modes."""
    case = inputs(name, torch.float64)[number]
    x = case.forward_input.args[0].detach()
    if x.numel() > 400:
        x = x[: max(2, 400 // x[0].numel())]
    x = x.clone().requires_grad_()
    layer = scatter(build(TWINS[name][0], case, torch.float64, backend=backend))
    parameters = dict(layer.named_parameters())

    def call(x, *values):
        # Running statistics move at every call, and must not for numerical derivatives.
        state = {name: value.clone() for name, value in layer.named_buffers()}
        return torch.func.functional_call(layer, state | dict(zip(parameters, values, strict=True)), (x,))

    for training in (True, False):
        layer.train(training)
        arguments = (x, *parameters.values())
        assert torch.autograd.gradcheck(call, arguments, fast_mode=True)
        assert torch.autograd.gradgradcheck(call, arguments, fast_mode=True)


ERRORS = [
    pytest.param(name, number, id=f"{name}-{number}")
    for name, info in INFOS.items()
    if info.module_error_inputs_func
    for number in range(len(info.module_error_inputs_func(info, "cpu", torch.float32, False, True)))
]


@pytest.mark.parametrize(("name", "number"), ERRORS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_error_inputs(name, number, backend):
    info = INFOS[name]
    case = info.module_error_inputs_func(info, "cpu", torch.float32, False, True)[number]
    module_input = case.module_error_input
    if case.error_on == ModuleErrorEnum.CONSTRUCTION_ERROR:
        with pytest.raises(case.error_type, match=case.error_regex):
            build(TWINS[name][0], module_input, backend=backend)
        return
    layer = build(TWINS[name][0], module_input, backend=backend)
    with pytest.raises(case.error_type, match=case.error_regex):
        layer(*module_input.forward_input.args)
