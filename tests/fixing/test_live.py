"""`normdoctor.fix` on live models."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import normdoctor
from normdoctor.errors import RewriteError, UsageError


def trained(model, *shape):
    """A model whose running statistics are not the initial ones."""
    torch.manual_seed(0)
    for _ in range(3):
        model(torch.randn(*shape))
    return model


def conv_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, 0.8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)
    )


class TestSafe:
    def test_a_bias_goes_into_the_running_mean_and_outputs_stay(self):
        model, x = trained(conv_net(), 8, 3, 8, 8), torch.randn(4, 3, 8, 8)
        report = normdoctor.check(model, x)
        result = normdoctor.fix(model, report, inputs=x)
        assert [one.code for one in result.fixed] == ["ND101"]
        assert result.verified
        assert result.model[0].bias is None
        assert model[0].bias is not None  # the model itself is as it was
        torch.testing.assert_close(result.model.eval()(x), model.eval()(x), rtol=1e-4, atol=1e-5)
        assert [(one.code, "unsafe" in reason) for one, reason in result.unfixed] == [
            ("ND201", True),
            ("ND209", False),
        ]

    def test_in_place_keeps_the_objects(self):
        model, x = trained(conv_net(), 8, 3, 8, 8), torch.randn(4, 3, 8, 8)
        weight = model[0].weight
        before = model.eval()(x)
        result = normdoctor.fix(model.train(), inputs=x, inplace=True)
        assert result.model is model
        assert model[0].weight is weight
        torch.testing.assert_close(model.eval()(x), before, rtol=1e-4, atol=1e-5)

    def test_a_hidden_list(self):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.blocks = [nn.Linear(8, 8) for _ in range(2)]

            def forward(self, x):
                for block in self.blocks:
                    x = torch.relu(block(x))
                return x

        result = normdoctor.fix(Net(), inputs=torch.randn(4, 8))
        assert [one.code for one in result.fixed] == ["ND502"]
        assert sorted(result.model.state_dict())[0] == "blocks.0.bias"

    def test_a_tensor_becomes_a_buffer(self):
        class Centred(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(8, 8)
                self.center = torch.zeros(8)

            def forward(self, x):
                x = self.fc(x)
                if self.training:
                    self.center = 0.9 * self.center + 0.1 * x.mean(0).detach()
                return x - self.center

        result = normdoctor.fix(Centred(), inputs=torch.randn(4, 8))
        assert [one.code for one in result.fixed] == ["ND503"]
        assert "center" in dict(result.model.named_buffers())


class TestUnsafe:
    def test_settings_of_norms(self):
        model, x = conv_net(), torch.randn(4, 3, 8, 8)
        result = normdoctor.fix(model, inputs=x, unsafe=True)
        assert {one.code for one in result.fixed} == {"ND101", "ND201"}
        assert result.model[1].eps == 1e-5
        assert result.model[1].momentum == pytest.approx(0.2)

    def test_a_softmax_in_front_of_cross_entropy(self):
        model = nn.Sequential(nn.Linear(8, 4), nn.Softmax(dim=1))
        result = normdoctor.fix(model, inputs=torch.randn(4, 8), loss=nn.CrossEntropyLoss(), unsafe=True)
        assert isinstance(result.model[1], nn.Identity)

    def test_a_hand_written_norm(self):
        class LayerNorm(nn.Module):
            def __init__(self, dim):
                super().__init__()
                self.gain = nn.Parameter(torch.rand(dim) + 0.5)
                self.shift = nn.Parameter(torch.rand(dim))

            def forward(self, x):
                mean = x.mean(-1, keepdim=True)
                var = x.var(-1, keepdim=True, unbiased=False)
                return self.gain * (x - mean) / torch.sqrt(var + 1e-5) + self.shift

        model, x = nn.Sequential(nn.Linear(8, 16), LayerNorm(16), nn.ReLU()), torch.randn(4, 8)
        result = normdoctor.fix(model, inputs=x, unsafe=True)
        assert isinstance(result.model[1], nn.LayerNorm)
        torch.testing.assert_close(result.model(x), model(x))

    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("way", ["weight_norm", "spectral_norm"])
    def test_the_old_reparametrizations(self, way):
        model = nn.Sequential(getattr(nn.utils, way)(nn.Linear(8, 8)), nn.ReLU(), nn.Linear(8, 2))
        result = normdoctor.fix(model, inputs=torch.randn(4, 8), unsafe=True, inplace=True)
        assert [one.code for one in result.fixed] == ["ND120"]
        assert hasattr(model[0], "parametrizations")


def test_code_of_a_forward_is_left_with_the_reason():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(8, 4)

        def forward(self, x):
            return torch.nn.functional.dropout(self.fc(x), 0.5)

    result = normdoctor.fix(Net(), inputs=torch.randn(4, 8))
    assert not result.fixed
    assert any("--fix" in reason for one, reason in result.unfixed if one.code == "ND318")
    assert "ND318" in str(result)


@pytest.mark.parametrize("findings", [["ND101"], [1]])
def test_what_is_no_finding_is_refused(findings):
    with pytest.raises(UsageError, match="findings"):
        normdoctor.fix(nn.Linear(2, 2), findings)
    with pytest.raises(UsageError, match="module"):
        normdoctor.fix("model")


class Closure(nn.Module):
    """A copy of it runs the original's layers."""

    def __init__(self):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.run = lambda x: self.bn(self.conv(x))

    def forward(self, x):
        return self.run(x)


class Itself(nn.Sequential):
    def __deepcopy__(self, memo):
        return self


@pytest.mark.parametrize("make", [Closure, lambda: Itself(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))])
@pytest.mark.parametrize("inplace", [False, True])
def test_a_copy_that_is_none(make, inplace):
    model, x = make(), torch.randn(4, 3, 8, 8)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(RewriteError, match=r"of the original|shares"):
        normdoctor.fix(model, inputs=x, inplace=inplace)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(value, before[key]) for key, value in after.items())


@pytest.mark.parametrize("name", ["unsafe", "verify", "inplace"])
@pytest.mark.parametrize("value", ["no", None, 1])
def test_switches_are_true_or_false(name, value):
    with pytest.raises(UsageError, match=f"{name} is a"):
        normdoctor.fix(conv_net(), inputs=torch.randn(2, 3, 8, 8), **{name: value})


@pytest.mark.parametrize("findings", [5, object(), nn.ReLU()])
def test_what_cannot_be_findings(findings):
    with pytest.raises(UsageError, match="expected findings, or a report, found"):
        normdoctor.fix(conv_net(), findings)


def test_lazy_layers_are_left_with_the_reason():
    model = nn.Sequential(nn.LazyConv2d(8, 3), nn.BatchNorm2d(8))
    result = normdoctor.fix(model, inputs=torch.randn(2, 3, 8, 8))
    assert result.fixed == ()
    assert "cannot be applied" in {one.code: reason for one, reason in result.unfixed}["ND101"]
