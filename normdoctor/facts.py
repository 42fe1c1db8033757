"""What is known about a model, as plain frozen data: no torch, and all of it can be saved as JSON.

Tracing makes `Facts`; rules read them. The dataflow is a list of `Node` in execution order, in which
`inputs` refer to earlier nodes by index. `normdoctor.graph.Graph` walks it.
"""

from __future__ import annotations

from typing import Any

import msgspec

SCHEMA_VERSION = 1


class Location(msgspec.Struct, frozen=True, order=True):
    """A span of source. Lines and columns count from 1; `end_column` is exclusive."""

    file: str
    line: int
    column: int = 1
    end_line: int = 0
    end_column: int = 0


class TensorFact(msgspec.Struct, frozen=True, array_like=True):
    """Shape and dtype (`"float32"`) of one tensor."""

    shape: tuple[int, ...]
    dtype: str = "float32"

    @property
    def size(self) -> int:
        """The number of elements."""
        count = 1
        for length in self.shape:
            count *= length
        return count


class InitFact(msgspec.Struct, frozen=True, kw_only=True):
    """The distribution that the values of a tensor match.

    Args:
        distribution: `constant`, `uniform`, `normal`, `truncated_normal`, `orthogonal`, `identity` (ones
            on a diagonal, scaled), `dirac` (a convolution that hands its input on), or `""`: none of them.
        mean: The mean of the distribution.
        std: Its standard deviation; that of the normal before it was truncated.
        low: The bound below, of uniform and truncated normal.
        high: The bound above.
        distance: The Kolmogorov-Smirnov distance between sample and distribution, times the root of the
            sample's size: below 1.36 in 95 % of samples of that distribution, below 1.95 in 99.9 %. Up to
            2.2 counts as a match.
        sample: How many values were compared with the distribution; 0 where all were (orthogonal, ...).
        zeros: The share of exact zeros, which were left out of the comparison (padding rows, sparse).
    """

    distribution: str
    mean: float = 0.0
    std: float = 0.0
    low: float = 0.0
    high: float = 0.0
    distance: float = 0.0
    sample: int = 0
    zeros: float = 0.0


class WeightFact(msgspec.Struct, frozen=True, kw_only=True):
    """What the values of one parameter or buffer say.

    `minimum`, `maximum` and `finite` are exact. `mean` and `std` (of the population) are those of all
    values up to 8192, and of a sample of so many beyond that: standard errors of 1.1 % and 0.8 % of std.
    """

    count: int
    finite: bool
    minimum: float
    maximum: float
    mean: float
    std: float
    uninitialized: bool = False
    """Built under torch's deterministic fill, it still holds the fill: nobody initialized it."""
    values: tuple[float, ...] = ()
    """The values themselves, of tensors with one axis and few elements (gamma, beta, running_var)."""
    init: InitFact | None = None
    """What the values match; None where they are too few to say (below 32, unless all are equal)."""
    duplicate_rows: int = 0
    """Slices along the first axis (the units of nn.Linear and nn.Conv2d) that equal an earlier slice,
    all-zero ones left out. Exact; 0 for tensors of one value and for more than 65536 slices."""
    duplicate_columns: int = 0
    """As `duplicate_rows`, along the second axis: the units of `x @ W` and of a transposed convolution."""
    zero_rows: int = 0
    """Slices along the first axis that are zero throughout."""
    spectral_norm: float | None = None
    """The largest singular value of the weight as an eval forward uses it, W / (u W v), for weights under
    the old `torch.nn.utils.spectral_norm`; 1 where u and v have converged."""
    truncation: tuple[float, float] | None = None
    """The bounds that `nn.init.trunc_normal_` was called with while the model was built, in standard
    deviations from its mean; None where nobody saw such a call."""

    @property
    def constant(self) -> bool:
        """Are all values finite and equal?"""
        return self.finite and self.minimum == self.maximum

    @property
    def mean_square(self) -> float:
        """The mean of the squared values."""
        return self.mean * self.mean + self.std * self.std


class ParameterFact(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter, buffer or plain tensor attribute of a module.

    `kind` is `"parameter"`, `"buffer"` or `"attribute"` (a tensor that is registered nowhere);
    `aliases` are further names of the same tensor (tied weights). `origin` is the expression that made
    it, where that is known; `updated` is true where the recorded forward wrote into it or replaced it.
    """

    name: str
    module: str
    tensor: TensorFact
    kind: str = "parameter"
    trainable: bool = True
    aliases: tuple[str, ...] = ()
    origin: Location | None = None
    updated: bool = False

    @property
    def attribute(self) -> str:
        """The name within its module: `weight` of `layer1.0.weight`."""
        return self.name[len(self.module) :].lstrip(".")


class ModuleFact(msgspec.Struct, frozen=True, kw_only=True):
    """One module object.

    `type` is its class's name, `base` the name of the torch class that it is or derives from
    (`"BatchNorm2d"` for timm's BatchNormAct2d), `""` for a class of the user's own. `leaf` is true
    where torch's own forward runs, so that the module is one node of the graph. `calls` counts its
    executions in the recorded forward. `origin` is the expression that built it; `registered` is
    false for modules that hide in a plain list, dict or tuple, which lies at `container`.
    """

    path: str
    type: str
    qualname: str
    base: str = ""
    role: str = "other"
    leaf: bool = False
    training: bool = True
    registered: bool = True
    container: str = ""
    calls: int = 0
    config: dict[str, Any] = {}
    parameters: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    origin: Location | None = None
    via: tuple[Location, ...] = ()
    """The frames outside the origin, innermost first: who asked for it to be built."""
    reparametrized: dict[str, str] = {}
    """Parameter to how it is computed: `weight_norm`, `spectral_norm` (torch.nn.utils, the old way),
    `parametrizations.weight_norm`, ... or the name of the parametrization's class."""
    named: bool = False
    """The forward of the module that holds it names it, on one of its paths."""


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """One step of the recorded forward.

    Args:
        index: Its position in `Facts.nodes`.
        name: Its name in the `torch.fx.Graph`.
        op: As in torch.fx: placeholder, call_module, call_function, call_method, get_attr, output.
        role: One of a small closed set: input, parameter, norm, activation, linear, dropout, add,
            gate, concat, pool, reshape, reduce, softmax, attention, loss, output, other.
        kind: What is computed, in torch.nn.functional's words: `conv2d`, `batch_norm`, `relu`, `add`.
        module: The path of the leaf module that was called, None for a function.
        scope: The path of the innermost module in whose forward the call stands.
        inputs: Nodes whose tensors it reads, in argument order; parameters are in `parameters`.
        parameters: Names of the parameters, buffers and attributes that it reads.
        outputs: Shape and dtype of every tensor that it returns.
        config: The arguments that matter for its role (`p`, `dim`, `eps`, `training`, `inplace`).
        location: The call in the user's forward.
        mutates: The node whose memory an in-place call overwrites.
        view_of: The node with whose output the result shares memory.
        call: Which execution of its scope this is, counted from 0.
        axes: What each axis of the first output stands for: `batch`, `channel`, `space`, `time`,
            `heads`, `""` where unknown, several joined by `*` (`batch*time`) where they were merged,
            outermost first; `()` where nothing is known.
    """

    index: int
    name: str
    op: str
    role: str
    kind: str
    module: str | None = None
    scope: str = ""
    inputs: tuple[int, ...] = ()
    parameters: tuple[str, ...] = ()
    outputs: tuple[TensorFact, ...] = ()
    config: dict[str, Any] = {}
    location: Location | None = None
    mutates: int | None = None
    view_of: int | None = None
    call: int = 0
    axes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the first output; `()` when there is none."""
        return self.outputs[0].shape if self.outputs else ()


class LossFact(msgspec.Struct, frozen=True, kw_only=True):
    """A loss that is applied to the model: `kind` in torch.nn.functional's words (`cross_entropy`).

    `node` is the node whose output it takes. `certain` is true when the loss was recorded, false
    when it was read off the source. `config` holds its settings (`reduction`, `label_smoothing`), and
    what is known of its target: `target_shape`, `target_dtype`, `target_min`, `target_max`.

    Of a loss that was read off the source, `output` says how the source names the one of several
    outputs that it takes (`[1]`, `logits`), and `path` is `evaluation` where it stands on a path that
    does not train (a `validate` function, `torch.no_grad()`).
    """

    kind: str
    node: int
    certain: bool
    location: Location | None = None
    config: dict[str, Any] = {}
    output: str = ""
    path: str = ""


class HandwrittenNorm(msgspec.Struct, frozen=True, kw_only=True):
    """Code of the user's that computes a norm: proposed by the graph, confirmed by numbers.

    Args:
        kind: Which norm, in torch.nn.functional's words: `layer_norm`, `rms_norm`, `batch_norm`,
            `group_norm`, `instance_norm`, `normalize`; `""` where the numbers fit none.
        module: The path of the module that computes it.
        input: The node whose output is normalized, `output` the one that holds the result.
        nodes: Everything from the one to the other, in execution order.
        reduced: The axes of the input that mean and variance are taken over, counted from 0.
        centred: The mean is subtracted.
        unbiased: The variance divides by n - 1; None where it cannot be told.
        eps: The epsilon that is added, None for none or unknown.
        eps_place: `inside` the root, `outside` it, `clamp`, or `none`.
        running: It has running statistics.
        inverted: It multiplies where it should divide.
        confirmed: The numbers were compared with the formula.
        evidence: Further figures of the confirmation; `reason` says why it could not be confirmed.
        groups: Into how many groups the channels fall, 0 where each set of statistics has whole axes.
        scales: Names of the model's tensors that scale the result, `shifts` of those that shift it.
        frozen: In the recorded forward the statistics were tensors of the model, not of the input.
        modes: Mode (`train`, `eval`, `train, no_grad`, `eval, no_grad`) to where its statistics come
            from: `batch`, `sample` or `running`. Empty where the module was not run by itself.
        tracked: Names of the tensors that a training step updates.
        tracked_unbiased: The variance that they take in divides by n - 1; None where unknown.
    """

    kind: str
    module: str
    input: int
    output: int
    nodes: tuple[int, ...]
    reduced: tuple[int, ...] = ()
    centred: bool = True
    unbiased: bool | None = None
    eps: float | None = None
    eps_place: str = ""
    running: bool = False
    inverted: bool = False
    confirmed: bool = False
    location: Location | None = None
    evidence: dict[str, Any] = {}
    groups: int = 0
    scales: tuple[str, ...] = ()
    shifts: tuple[str, ...] = ()
    frozen: bool = False
    modes: dict[str, str] = {}
    tracked: tuple[str, ...] = ()
    tracked_unbiased: bool | None = None


class OptimizerGroup(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter group: names of the model's parameters, and the number of foreign ones."""

    parameters: tuple[str, ...]
    foreign: int = 0
    options: dict[str, Any] = {}
    """The group's settings that are plain values: `lr`, `weight_decay`, `momentum`, ..."""


class OptimizerFact(msgspec.Struct, frozen=True, kw_only=True):
    """An optimizer that trains the model: the name of its class and its groups."""

    type: str
    groups: tuple[OptimizerGroup, ...]
    location: Location | None = None


class TensorComparison(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor of the model beside that of the same name in the reference.

    `distance` is the largest absolute difference, None where shapes differ or values are unknown.
    """

    equal: bool
    distance: float | None = None
    reference: WeightFact | None = None


class ReferenceFact(msgspec.Struct, frozen=True, kw_only=True):
    """The model compared, name by name, with the one that it is a copy or a moving average of."""

    tensors: dict[str, TensorComparison]
    missing: tuple[str, ...] = ()


class InputFact(msgspec.Struct, frozen=True, kw_only=True):
    """One input of the recorded forward: `source` is given, data, declared, captured or inferred."""

    name: str
    tensor: TensorFact
    source: str


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that rules may know about one target.

    `recorded` is `"meta"`, `"fake"` or `"real"` (what carried the forward), or `""` where nothing
    could be recorded: then `nodes` is empty and `notes` say why. `weights` holds statistics by
    parameter name, and is None when no selected rule asked for them.
    """

    target: str
    modules: tuple[ModuleFact, ...] = ()
    parameters: tuple[ParameterFact, ...] = ()
    nodes: tuple[Node, ...] = ()
    inputs: tuple[InputFact, ...] = ()
    losses: tuple[LossFact, ...] = ()
    handwritten: tuple[HandwrittenNorm, ...] = ()
    optimizers: tuple[OptimizerFact, ...] = ()
    reference: ReferenceFact | None = None
    weights: dict[str, WeightFact] | None = None
    measurements: dict[str, dict[str, Any]] | None = None
    recorded: str = ""
    training: bool = True
    checkpoint: bool = False
    """Weights were loaded: rules about initialization do not apply."""
    notes: tuple[str, ...] = ()
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> bytes:
        """Encode, with sorted keys so that equal facts give equal bytes."""
        return msgspec.json.format(msgspec.json.encode(self, order="sorted"), indent=1)


def from_json(data: bytes) -> Facts:
    """Decode what `Facts.to_json` wrote; raises `msgspec.ValidationError` for anything else."""
    return msgspec.json.decode(data, type=Facts)
