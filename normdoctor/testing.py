"""For authors of rules: facts written by hand, and the examples of a page run as tests."""

from __future__ import annotations

import contextlib
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from normdoctor.errors import UsageError
from normdoctor.facts import (
    Facts,
    HandwrittenNorm,
    InputFact,
    Location,
    LossFact,
    ModuleFact,
    Node,
    OptimizerFact,
    OptimizerGroup,
    ParameterFact,
    TensorFact,
    WeightFact,
)
from normdoctor.findings import Finding
from normdoctor.graph import Graph
from normdoctor.rules import ENTRY_POINT_GROUP, find_rule
from normdoctor.rules.base import Rule, fences, page_of

if TYPE_CHECKING:
    from normdoctor.fixing.fixer import Outcome
    from normdoctor.report import Report

_ROLES = {
    "norm": "batch_norm instance_norm layer_norm group_norm rms_norm local_response_norm normalize",
    "activation": "relu relu6 leaky_relu prelu elu selu celu gelu silu mish hardswish hardsigmoid hardtanh "
    "sigmoid logsigmoid tanh softplus softsign glu",
    "softmax": "softmax log_softmax",
    "linear": "linear conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d embedding "
    "lstm gru rnn",
    "dropout": "dropout dropout1d dropout2d dropout3d alpha_dropout",
    "add": "add sub",
    "gate": "gate",
    "concat": "cat stack",
    "pool": "max_pool2d avg_pool2d adaptive_avg_pool2d adaptive_max_pool2d",
    "reshape": "identity view reshape flatten permute transpose squeeze unsqueeze chunk getitem "
    "pixel_shuffle",
    "reduce": "mean sum",
    "attention": "scaled_dot_product_attention multi_head_attention",
    "loss": "cross_entropy nll_loss mse_loss binary_cross_entropy",
    "input": "input",
    "parameter": "parameter",
    "output": "output",
}
_ROLE_OF = {kind: role for role, kinds in _ROLES.items() for kind in kinds.split()}
_KIND_OF = {
    "Linear": "linear",
    "Conv1d": "conv1d",
    "Conv2d": "conv2d",
    "ConvTranspose2d": "conv_transpose2d",
    "BatchNorm1d": "batch_norm",
    "BatchNorm2d": "batch_norm",
    "InstanceNorm2d": "instance_norm",
    "LayerNorm": "layer_norm",
    "GroupNorm": "group_norm",
    "RMSNorm": "rms_norm",
    "ReLU": "relu",
    "Sigmoid": "sigmoid",
    "Softmax": "softmax",
    "Softmax2d": "softmax",
    "Dropout": "dropout",
    "Identity": "identity",
    "MaxPool2d": "max_pool2d",
}


class FactsBuilder:
    """Writes `Facts` step by step, for tests of rules that need no torch.

    >>> build = FactsBuilder()
    >>> x = build.input(4, 3, 8, 8)
    >>> conv = build.layer("conv", "Conv2d", x, shape=(4, 8, 8, 8), weight=(8, 3, 3, 3), bias=(8,))
    >>> norm = build.layer("bn", "BatchNorm2d", conv, shape=(4, 8, 8, 8), weight=(8,), bias=(8,))
    >>> graph = build.graph(norm)
    """

    def __init__(self, *, training: bool = True, source: str = "given", checkpoint: bool = False) -> None:
        self.training = training
        self.source = source
        self.checkpoint = checkpoint
        self.modules: dict[str, ModuleFact] = {}
        self.parameters: dict[str, ParameterFact] = {}
        self.nodes: list[Node] = []
        self.inputs: list[InputFact] = []
        self.losses: list[LossFact] = []
        self.weights: dict[str, WeightFact] = {}
        self.handwritten: list[HandwrittenNorm] = []
        self.optimizers: list[OptimizerFact] = []
        self.module("", "Net", calls=1)

    def module(self, path: str, kind: str, **fields: Any) -> str:
        """Add a module that is not a leaf (or never called); returns its path."""
        fields.setdefault("qualname", kind)
        fields.setdefault("training", self.training)
        self.modules[path] = ModuleFact(path=path, type=kind, **fields)
        return path

    def parameter(self, module: str, attribute: str, *shape: int, **fields: Any) -> str:
        """Add a parameter (or, with `kind=`, a buffer or plain tensor); returns its name."""
        separator = "." if module and not attribute.startswith("[") else ""
        name = f"{module}{separator}{attribute}"
        self.parameters[name] = ParameterFact(name=name, module=module, tensor=TensorFact(shape), **fields)
        return name

    def weight(self, name: str, **fields: Any) -> None:
        """State what the values of a parameter are; a plain standard normal by default."""
        known = {"count": 64, "finite": True, "minimum": -2.0, "maximum": 2.0, "mean": 0.0, "std": 1.0}
        self.weights[name] = WeightFact(**(known | fields))

    def constant(self, name: str, value: float) -> None:
        """State that all values of a parameter are equal."""
        size = self.parameters[name].tensor.size
        self.weight(name, count=size, minimum=value, maximum=value, mean=value, std=0.0)

    def input(self, *shape: int, name: str = "x") -> int:
        """Add an input of the model."""
        self.inputs.append(InputFact(name=name, tensor=TensorFact(shape), source=self.source))
        return self._append(op="placeholder", kind="input", shape=shape, name=name)

    def layer(
        self,
        path: str,
        kind: str,
        *inputs: int,
        shape: tuple[int, ...],
        weight: tuple[int, ...] | None = None,
        bias: tuple[int, ...] | None = None,
        node: dict[str, Any] | None = None,
        **config: Any,
    ) -> int:
        """Call one of torch's layers at `path`; it is added with its parameters at its first call."""
        config.setdefault("bias", bias is not None)
        known = self.modules.get(path)
        if known is None:
            names = [
                self.parameter(path, attribute, *dims)
                for attribute, dims in (("weight", weight), ("bias", bias))
                if dims is not None
            ]
            self.module(
                path, kind, base=kind, leaf=True, calls=1, config=config, parameters=tuple(names),
                role=_ROLE_OF.get(_KIND_OF.get(kind, ""), "other"),
                origin=Location("model.py", len(self.modules)),
            )  # fmt: skip
        else:
            self.module(
                path, kind, base=kind, leaf=True, calls=known.calls + 1, config=known.config,
                parameters=known.parameters, role=known.role, origin=known.origin,
            )  # fmt: skip
        return self._append(
            *inputs, op="call_module", kind=_KIND_OF.get(kind, kind.lower()), shape=shape, module=path,
            scope=path.rpartition(".")[0], parameters=self.modules[path].parameters,
            config=self.modules[path].config, **(node or {}),
        )  # fmt: skip

    def op(self, kind: str, *inputs: int, shape: tuple[int, ...], scope: str = "", **fields: Any) -> int:
        """Call a function of torch; `config`, `parameters`, `mutates`, `role` as in `Node`."""
        return self._append(*inputs, op="call_function", kind=kind, shape=shape, scope=scope, **fields)

    def loss(self, kind: str, node: int, *, certain: bool = True) -> None:
        """Apply a loss to what a node returns."""
        self.losses.append(LossFact(kind=kind, node=node, certain=certain))

    def norm_by_hand(self, kind: str, first: int, last: int, **fields: Any) -> None:
        """State that the nodes after `first` up to `last` compute a norm of what `first` returns."""
        fields.setdefault("module", self.nodes[last].scope)
        fields.setdefault("confirmed", True)
        nodes = tuple(range(first + 1, last + 1))
        self.handwritten.append(HandwrittenNorm(kind=kind, input=first, output=last, nodes=nodes, **fields))

    def optimizer(self, *groups: tuple[str, ...], kind: str = "AdamW", **options: Any) -> None:
        """Train these groups of parameters, all with the same options."""
        made = tuple(OptimizerGroup(parameters=names, options=options) for names in groups)
        self.optimizers.append(OptimizerFact(type=kind, groups=made))

    def _append(self, *inputs: int, kind: str, shape: tuple[int, ...], **fields: Any) -> int:
        index = len(self.nodes)
        fields.setdefault("name", f"{kind}_{index}")
        fields.setdefault("role", _ROLE_OF.get(kind, "other"))
        outputs = (TensorFact(tuple(shape)),)
        self.nodes.append(Node(index=index, kind=kind, inputs=tuple(inputs), outputs=outputs, **fields))
        return index

    def facts(self, *outputs: int) -> Facts:
        """The facts of a model that returns these nodes; can be called once."""
        if outputs:
            self._append(*outputs, op="output", kind="output", shape=())
        return Facts(
            target="model.py:Net",
            modules=tuple(self.modules.values()),
            parameters=tuple(self.parameters.values()),
            nodes=tuple(self.nodes),
            inputs=tuple(self.inputs),
            losses=tuple(self.losses),
            handwritten=tuple(self.handwritten),
            optimizers=tuple(self.optimizers),
            weights=self.weights,
            recorded="meta",
            training=self.training,
            checkpoint=self.checkpoint,
        )

    def graph(self, *outputs: int) -> Graph:
        """The facts as rules see them."""
        return Graph(self.facts(*outputs))


def run_rule(rule: type[Rule], graph: Graph, **options: Any) -> list[Finding]:
    """Run one rule on facts."""
    return list(rule(options or None).check(graph))


def check_rule_examples(rule: type[Rule]) -> None:
    """Run every fence of a rule's page through the whole of normdoctor; raise AssertionError if one lies.

    A `bad` fence must give findings at exactly the lines that are marked `# CODE`, a `good` and a
    `fixed` fence none of this rule. A rule about the run is checked beside all others, of which it tells.
    A rule of another package has to be installed.
    """
    _demand_known(rule)
    for number, (role, source) in enumerate(fences(page_of(rule)), start=1):
        expected = marked_lines(source, rule.code) if role == "bad" else []
        select = ["ALL" if rule.about_run else rule.code]
        report = check_source(source, select=select, min_confidence="low")
        found = [finding for finding in report.findings if finding.code == rule.code or not rule.about_run]
        fired = sorted(finding.location.line for finding in found if finding.location)
        unplaced = [finding for finding in found if finding.location is None]
        assert not unplaced, f"{rule.code}, example {number} ({role}): a finding without a place"
        outcome = {result.code: result for result in report.results}.get(rule.code)
        assert outcome or rule.about_run, f"{rule.code}, example {number} ({role}): the rule did not run"
        assert outcome is None or outcome.outcome not in ("skipped", "error") or role == "good", (
            f"{rule.code}, example {number} ({role}): {outcome.outcome}, {outcome.reason}"
        )
        assert fired == expected, (
            f"{rule.code}, example {number} ({role}): fired at lines {fired}, marked are {expected}\n{source}"
        )


def check_rule_fixes(rule: type[Rule]) -> None:
    """Fix every `bad` fence of a rule's page; raise AssertionError where a fix does not do what it says.

    Where a fix is offered, the rule is silent afterwards, and a second run changes nothing. A `fixed` fence
    is what the fixes make of the `bad` one before it, to the letter.
    """
    _demand_known(rule)
    blocks = fences(page_of(rule))
    for number, (role, source) in enumerate(blocks, start=1):
        if role != "bad":
            continue
        where = f"{rule.code}, example {number}"
        expected = blocks[number][1] if blocks[number:] and blocks[number][0] == "fixed" else None
        text, outcome = fix_source(source, rule.code)
        offered = [one for one in outcome.before.findings if one.fix is not None and one.fix.applicable]
        assert offered or expected is None, f"{where}: a fixed example, and no fix is offered"
        assert expected in (None, text), f"{where}: expected\n{expected}\nfound\n{text}"
        refused = [one.reason for one in outcome.unfixed]
        assert not refused, f"{where}: not fixed: {refused}"
        left = [f for f in outcome.report.findings if f.code == rule.code and f.fix and f.fix.applicable]
        assert not left, f"{where}: the rule fires still\n{text}"
        if offered:
            assert fix_source(text, rule.code)[0] == text, f"{where}: a second run changes something"


def _demand_known(rule: type[Rule]) -> None:
    if find_rule(rule.code) is None:
        raise UsageError(
            f"the rule {rule.code} {rule.name} is not installed",
            hint=f"Declare it under the entry-point group {ENTRY_POINT_GROUP}, and install its package.",
        )


def fix_source(source: str, *codes: str, unsafe: bool = True) -> tuple[str, Outcome]:
    """Fix a model file that is given as text, as `--fix --unsafe-fixes --select CODES` does."""
    from normdoctor.config import Settings
    from normdoctor.findings import Confidence
    from normdoctor.fixing import demand_libcst

    demand_libcst()
    from normdoctor.fixing.fixer import fix_targets

    with tempfile.TemporaryDirectory(prefix="normdoctor-") as folder, contextlib.chdir(folder):
        path = Path("model.py")
        path.write_text(source, encoding="utf-8")
        loss = "model.py:loss" if re.search(r"^(?:def )?loss(?: = |\()", source, re.MULTILINE) else None
        settings = Settings(select=codes, min_confidence=Confidence.LOW, root=Path(folder), loss=loss)
        outcome = fix_targets(["model.py"], settings, unsafe=unsafe)
        return path.read_text(encoding="utf-8"), outcome


def check_source(source: str, **settings: Any) -> Report:
    """Check a model file that is given as text, with its `loss`, `labels`, `data` and `reference`."""
    with tempfile.TemporaryDirectory(prefix="normdoctor-") as folder:
        return check_file(Path(folder) / "model.py", source, **settings)


def check_file(path: Path, source: str, **settings: Any) -> Report:
    """Write a text to a file, and check that as `check_source` does."""
    from normdoctor import doctor

    path.write_text(source, encoding="utf-8")
    if re.search(r"^def train\(watch\)", source, re.MULTILINE):
        report = _watched(path, source, settings.get("min_confidence", "medium"))
        asked = tuple(f for f in report.findings if f.code in settings.get("select", [f.code]))
        return msgspec.structs.replace(report, findings=asked)
    given = re.findall(r"^(?:def )?(loss|labels|data|reference)\b(?: = |\()", source, re.MULTILINE)
    if given:
        values: dict[str, Any] = {"__name__": "model"}
        exec(compile(source, "model.py", "exec"), values)
        chosen = [name for name in given if name != "labels" or "loss" in given]
        settings = {name: values[name] for name in chosen} | settings
    return doctor.check(str(path), **settings)


def _watched(path: Path, source: str, min_confidence: str) -> Report:
    """Run the `train(watch)` of a file around its `model`, and take the report of the watch.

    Where processes are joined by `torch.distributed`, it is about all of them.
    """
    import torch

    import normdoctor
    from normdoctor.loading.origins import record_origins

    with torch.random.fork_rng(devices=[]):
        values: dict[str, Any] = {"__name__": "model", "__file__": str(path)}
        torch.manual_seed(0)
        with record_origins() as origins:
            exec(compile(source, str(path), "exec"), values)
        with normdoctor.watch(values["model"], every=1, on_finding="ignore") as watch:
            watch.facts_of.origins = origins
            values["train"](watch)
        together = torch.distributed.is_available() and torch.distributed.is_initialized()
        return watch.report(min_confidence=min_confidence, all_ranks=together)


def marked_lines(source: str, code: str) -> list[int]:
    """The lines that a comment `# CODE` marks, counted from 1."""
    mark = re.compile(rf"#.*\b{code}\b")
    return [number for number, line in enumerate(source.splitlines(), start=1) if mark.search(line)]
