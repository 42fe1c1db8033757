"""What a conversion works in: the model, its recorded forward, the journal of changes."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from torch import Tensor, nn

from normdoctor.loading.example import ExampleInputs
from normdoctor.rewriting.conversions.base import Place, Refused
from normdoctor.rewriting.flow import Flow, recorded
from normdoctor.rewriting.journal import Journal
from normdoctor.rewriting.ledger import Heir


class Scene:
    """One call of `convert`.

    Attributes:
        model: The model that is changed.
        example: The inputs, given or inferred; None where there are none.
        candidates: The layers that were chosen, by path.
        places: Those of them that are known for what they are.
        data: What the user gave to calibrate with.
        journal: Where changes are made.
        heirs: Id of a new parameter to the old one beside which, or in whose place, it is trained.
        moved: Old key of the state dict to the new one, where that is not the same.
        notes: What the user should know.
        inferred: Inputs may be made up where none were given.
    """

    def __init__(self, model: nn.Module, example: ExampleInputs | None, data: Any, inferred: bool) -> None:
        self.model = model
        self.example = example
        self.inferred = inferred
        self.data = data
        self.candidates: dict[str, nn.Module] = {}
        self.places: list[Place] = []
        self.journal = Journal()
        self.heirs: dict[int, Heir] = {}
        self.moved: dict[str, str] = {}
        self.notes: list[str] = []

    @cached_property
    def _recorded(self) -> tuple[Flow | None, str]:
        if self.example is None and not self.inferred:
            return None, "no inputs were given"
        flow, reason = recorded(self.model, self.example)
        if flow is not None and self.example is None:
            self.example = flow.recording.example
            self.notes.append(f"inputs inferred: {self.example.note}")
        return flow, reason

    @property
    def flow(self) -> Flow | None:
        """The recorded forward of the model as it was at first, None where it cannot be recorded."""
        return self._recorded[0]

    @property
    def known_flow(self) -> Flow | None:
        """The recorded forward, where inputs were given or it was asked for before."""
        asked = self.example is not None or "_recorded" in vars(self)
        return self.flow if asked else None

    @property
    def why_no_flow(self) -> str:
        """Why there is no recorded forward."""
        return self._recorded[1]

    def demand_flow(self) -> Flow:
        """The recorded forward; raises `Refused` where there is none."""
        if self.flow is None:
            raise Refused(f"the forward is not known: {self.why_no_flow}")
        return self.flow

    def rename(self, path: str, names: dict[str, str]) -> None:
        """Note that tensors of a layer have other names now: `{"gamma": "weight"}`."""
        prefix = f"{path}." if path else ""
        self.moved.update({f"{prefix}{old}": f"{prefix}{new}" for old, new in names.items()})

    def name_of(self, tensor: Tensor) -> str | None:
        """The name of a parameter or buffer of the model."""
        found = (*self.model.named_parameters(), *self.model.named_buffers())
        return next((name for name, one in found if one is tensor), None)
