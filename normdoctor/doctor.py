"""The flow of a check and nothing else: load, examine, run the rules, report."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from normdoctor.arguments import check_types, path_of, selectors
from normdoctor.config import BATCHES, Settings, check_confidence, check_count, override
from normdoctor.errors import NormDoctorError, TargetError, TraceError, UsageError, kind_of
from normdoctor.findings import Confidence
from normdoctor.report import Report
from normdoctor.running import OnResult, Session, check_facts, load_facts

if TYPE_CHECKING:
    import torch

    from normdoctor.facts import Facts
    from normdoctor.loading.target import Target
    from normdoctor.probing.source import Source
    from normdoctor.tracing.examine import Examination, Request

LOG = logging.getLogger(__name__)


class Onlooker(Protocol):
    """Looks at every target of a check, and may load it from another place."""

    def load_as(self, spec: str) -> str:
        """The target string to load in the place of `spec`."""

    def named(self, name: str) -> str:
        """What to call a target of this name."""

    def saw(self, target: Target, examination: Examination, facts: Facts) -> None:
        """Take what was learnt of a target."""


def check(
    model: torch.nn.Module | object,
    inputs: Any = None,
    *,
    loss: object | None = None,
    labels: Any = None,
    optimizer: object | None = None,
    data: Iterable[Any] | Callable[[], Iterable[Any]] | str | None = None,
    batches: int = BATCHES,
    batch_size: int | None = None,
    batch_to_inputs: Callable[[Any], Any] | None = None,
    reference: torch.nn.Module | None = None,
    weights: str | os.PathLike[str] | None = None,
    select: str | Sequence[str] | None = None,
    ignore: str | Sequence[str] | None = None,
    min_confidence: str = "medium",
    device: str | None = None,
    all_ranks: bool = False,
    settings: Settings | None = None,
) -> Report:
    """Check a model; it is left as it was.

    Args:
        model: A module, a factory without arguments (built by us, so that the construction of every
            layer and uninitialized memory are seen) or a target string such as `"model.py:Net"`.
        inputs: What to call it with: a tensor, a tuple of positional arguments, a dict of keyword
            arguments, or specs as on the command line. Inferred, and said so, when None.
        loss: A loss of torch's, any callable of the model's output (and `labels`), or the name of
            one (`"cross_entropy"`, `"train.py:loss_fn"`); its call is recorded too.
        labels: The second argument of the loss; made up where it is needed and None.
        optimizer: The optimizer that trains the model.
        data: Batches for the measured rules: tensors, `(inputs, labels)` pairs or dicts, from any iterable,
            a DataLoader, a function that returns one, or a target string of one; `"synthetic"` makes them up
            in the shapes of the inputs, and findings that rest on them are warnings at most.
        batches: How many batches of the data are read.
        batch_size: The batch size of the training; synthetic batches have it.
        batch_to_inputs: Makes of a batch what the model takes: a tensor, a tuple of positional arguments or
            a dict of keyword arguments. Without it, as many of a tuple's first elements as forward needs.
        reference: The online model of which `model` is a moving average or a copy.
        weights: A checkpoint whose weights stand in for the model's own during the check: what
            `torch.save(model.state_dict())` wrote, or safetensors. Pickled objects are refused.
        select: Rules to run, by code, prefix or name; all when None.
        ignore: Rules not to run.
        min_confidence: `"low"`, `"medium"` or `"high"`: findings below it are counted, not shown.
        device: Where inputs are put; `"meta"` keeps everything without data.
        all_ranks: Under `torch.distributed`, judge what all ranks measured together, each on its own data,
            and compare their norms. All of them have to call it, also one whose data hold no batch.
        settings: What a configuration file says of rules, levels, options, suppressions and roles (see
            `normdoctor.configfile.load_settings`); the arguments stand over it.

    Returns:
        The report. Its `problems` say when the forward could not be recorded.

    Raises:
        NormDoctorError: An argument is wrong, or the target cannot be loaded.
    """
    from normdoctor.tracing.examine import Request

    if labels is not None and loss is None:
        raise UsageError("labels were given without a loss", hint="For example loss=nn.CrossEntropyLoss().")
    check_confidence(min_confidence)
    check_types(optimizer, reference)
    source = _source(data, batches, batch_size, batch_to_inputs, all_ranks=all_ranks)
    settings = override(
        settings or Settings(),
        select=selectors("select", select),
        ignore=selectors("ignore", ignore),
        min_confidence=Confidence(min_confidence),
    )
    request = Request(
        inputs=inputs,
        loss=_loss(loss),
        labels=labels,
        optimizer=optimizer,
        reference=reference,
        weights=path_of("weights", weights),
        device=device,
        roles=settings.roles,
    )
    session = Session(settings)
    for target in _targets(model):
        _check(session, target, request, settings, None, source)
    return session.report()


def check_targets(
    specs: Sequence[str],
    settings: Settings,
    on_result: OnResult | None = None,
    onlooker: Onlooker | None = None,
) -> Report:
    """Check targets by their strings, as the command line does; one that fails does not stop the rest."""
    if settings.from_facts is not None:
        return check_facts(load_facts(settings.from_facts), settings, on_result)
    settings = _with_named(settings)
    source = _source(settings.data, settings.batches, settings.batch_size, None, progress=settings.progress)
    session = Session(settings, on_result)
    for spec in specs:
        if session.stopped:
            break
        try:
            targets = load_targets(onlooker.load_as(spec) if onlooker else spec, settings)
        except NormDoctorError as error:
            session.problem(spec, error)
            continue
        for target in targets:
            if not session.stopped:
                _check_or_note(session, target, settings, spec, source, onlooker)
    return session.report()


def _check_or_note(
    session: Session,
    target: Target,
    settings: Settings,
    spec: str,
    source: Source | None,
    onlooker: Onlooker | None,
) -> None:
    from dataclasses import replace

    if onlooker is not None:
        target = replace(target, name=onlooker.named(target.name))
    try:
        _check(session, target, _request(spec, settings), settings, spec, source, onlooker)
    except (TargetError, TraceError) as error:
        session.problem(target.name, error)


def facts_of(spec: str, settings: Settings) -> tuple[Facts, ...]:
    """The facts of every model that a target string names, with what its weights hold."""
    from dataclasses import replace

    if settings.from_facts is not None:
        return load_facts(settings.from_facts)
    request = replace(_request(spec, settings), requirements=frozenset({"weights"}))
    given = bool(settings.inputs_for(spec))
    targets = load_targets(spec, settings)
    return tuple(_explained(_examined(target, request), given=given) for target in targets)


def load_targets(spec: str, settings: Settings) -> list[Target]:
    """Load every model that a target string names."""
    from normdoctor.loading.soundness import foreign_errors
    from normdoctor.loading.target import load

    limit = settings.import_timeout
    started = time.perf_counter()
    with foreign_errors(spec):
        found = load(spec) if limit is None else load(spec, import_timeout=limit)
    names = ", ".join(target.name for target in found)
    LOG.debug("loaded %s in %.2f s: %s", spec, time.perf_counter() - started, names)
    return found


def _targets(model: object) -> list[Target]:
    from normdoctor.loading.target import from_object, load

    return load(model) if isinstance(model, str) else [from_object(model)]


def _request(spec: str, settings: Settings) -> Request:
    from normdoctor.tracing.examine import Request

    return Request(
        specs=settings.inputs_for(spec),
        loss=settings.loss,
        optimizer=settings.optimizer,
        reference=_reference(settings.reference),
        weights=settings.weights,
        device=settings.device,
        roles=settings.roles,
    )


def _with_named(settings: Settings) -> Settings:
    """Load what the settings name: the loss and the factory of optimizers."""
    from dataclasses import replace

    optimizer = settings.optimizer
    if isinstance(optimizer, str):
        from normdoctor.loading.objects import load_object

        optimizer = load_object(optimizer, "the optimizer")
    return replace(settings, loss=_loss(settings.loss), optimizer=optimizer)


def _loss(loss: object | None) -> object | None:
    """The loss that a target string names; names of torch's are left to the recording."""
    if not isinstance(loss, str):
        return loss
    from normdoctor.tracing.losses import is_torch_name

    if is_torch_name(loss):
        return loss
    from normdoctor.loading.objects import load_object

    found: object = load_object(loss, "the loss")
    return found


def _source(
    data: Any,
    batches: int,
    batch_size: int | None,
    to_inputs: Callable[[Any], Any] | None,
    *,
    progress: bool = False,
    all_ranks: bool = False,
) -> Source | None:
    """Where the measured rules get their batches; None where nothing was said."""
    if type(all_ranks) is not bool:
        raise UsageError(f"all_ranks is {kind_of(all_ranks)}: expected True or False")
    if all_ranks:
        from normdoctor.probing.ranks import demand_ranks, together

        demand_ranks()
        return together(lambda: _made_source(data, batches, batch_size, to_inputs, all_ranks=True))
    return _made_source(data, batches, batch_size, to_inputs, progress=progress)


def _made_source(
    data: Any,
    batches: int,
    batch_size: int | None,
    to_inputs: Callable[[Any], Any] | None,
    *,
    progress: bool = False,
    all_ranks: bool = False,
) -> Source | None:
    check_count(batches, "a number of batches")
    if batch_size is not None:
        check_count(batch_size, "a batch size")
    if to_inputs is not None and not callable(to_inputs):
        raise UsageError(f"batch_to_inputs is {kind_of(to_inputs)}: expected a function of a batch")
    if data is None and to_inputs is not None:
        raise UsageError("batch_to_inputs was given without data", hint="Pass data= as well.")
    if data is None and batch_size is None and not all_ranks:
        return None
    from normdoctor.probing.source import Source

    return Source(data, batches, batch_size, to_inputs, progress=progress, all_ranks=all_ranks)


def _reference(reference: str | None) -> torch.nn.Module | None:
    if reference is None:
        return None
    from normdoctor.loading.objects import load_reference

    return load_reference(reference)


def _check(
    session: Session,
    target: Target,
    request: Request,
    settings: Settings,
    spec: str | None,
    source: Source | None,
    onlooker: Onlooker | None = None,
) -> None:
    from dataclasses import replace

    from normdoctor.loading.checkpoint import loaded

    # An onlooker may want to run other rules on what was learnt.
    more = frozenset({"weights"}) if onlooker is not None else frozenset()
    request = replace(request, requirements=session.requirements(target.name, spec) | more)
    with loaded(target.model, request.weights) as notes:
        target = replace(target, notes=(*target.notes, *notes))
        if source is None:
            examination = _examined(target, request)
            facts = examination.facts
        else:
            examination, facts = _with_data(target, request, source, session.needs(target.name, spec))
        if onlooker is not None:
            onlooker.saw(target, examination, facts)
    if examination.error is not None:
        session.problem(target.name, examination.error)
    session.check(facts, spec)


def _with_data(
    target: Target, request: Request, source: Source, needs: Collection[str]
) -> tuple[Examination, Facts]:
    """Record the target on the first batch, unless other inputs are given, and measure it on all of them."""
    from dataclasses import replace

    from normdoctor.probing.ranks import together
    from normdoctor.probing.sandbox import undisturbed

    with undisturbed():
        if source.all_ranks:
            examination = together(lambda: _examined(target, request))
        else:
            if request.inputs is None and not request.specs:
                target = replace(target, inputs=source.example(target) or target.inputs)
            examination = _examined(target, request)
        return examination, source.measured(target, examination, needs, request.device)


def _examined(target: Target, request: Request) -> Examination:
    from normdoctor.loading.isolation import kept_in_place
    from normdoctor.loading.soundness import foreign_errors
    from normdoctor.tracing.examine import examine

    # What forward prints is no part of the report: it goes where the file's own prints go.
    started = time.perf_counter()
    aside = contextlib.redirect_stdout(sys.stderr)
    with kept_in_place(), target.active(), foreign_errors(target.name), aside:
        found = examine(target, request)
    LOG.debug(
        "examined %s in %.2f s: %d modules, %d nodes, recorded on %s",
        *(target.name, time.perf_counter() - started, len(found.facts.modules), len(found.facts.nodes)),
        found.facts.recorded or "nothing",
    )
    return found


def _explained(examination: Examination, *, given: bool) -> Facts:
    """The facts, with the reason among the notes where the forward could not be recorded.

    Inputs that the user gave and that do not run are the user's to mend.
    """
    if examination.error is None:
        return examination.facts
    if given:
        raise examination.error
    from msgspec.structs import replace

    return replace(examination.facts, notes=(*examination.facts.notes, examination.error.message))
