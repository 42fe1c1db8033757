"""Layers that keep to shapes on meta: the shapes are torch's own."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from normdoctor.tracing import meta


def shapes(result):
    output, states = result
    states = states if isinstance(states, tuple) else (states,)
    data = output.data if isinstance(output, PackedSequence) else output
    return [data.shape, *(state.shape for state in states)]


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("proj_size", [0, 3])
def test_recurrent_layers(kind, proj_size):
    if proj_size and kind is not nn.LSTM:
        pytest.skip("only LSTM projects")
    packed = pack_padded_sequence(torch.randn(7, 3, 4), [7, 5, 2])
    on_meta = PackedSequence(packed.data.to("meta"), packed.batch_sizes, None, None)
    given = {"proj_size": proj_size} if proj_size else {}
    for two_ways, batch_first in itertools.product((False, True), repeat=2):
        layer = kind(4, 5, 2, bidirectional=two_ways, batch_first=batch_first, **given)
        inputs = [torch.randn(3, 7, 4), torch.randn(7, 4)]
        wanted = [shapes(layer(x)) for x in (*inputs, packed)]
        layer = layer.to("meta")
        with meta.light_layers(), torch._C.DisableTorchFunction():
            found = [shapes(layer(x)) for x in (*(x.to("meta") for x in inputs), on_meta)]
        assert found == wanted


def test_nothing_stays_behind():
    before = torch.batch_norm
    with meta.light_layers():
        pass
    assert torch.batch_norm is before
    assert not {"lstm", "gru", "rnn_tanh", "rnn_relu"} & set(vars(torch._VF))
