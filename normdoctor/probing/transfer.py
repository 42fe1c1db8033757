"""Copies to the host that nobody waits for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

#: A tensor of more values than this is large: counts of units, not a figure of a site.
LARGE = 2**17


class Transfer:
    """A copy of tensors, as float64, that is on its way to the host.

    The copy is ordered behind what was launched before it; later writes to the tensors do not touch it.
    `immediate` is true where nothing had to travel. With `still` nobody writes to the tensors before they
    were waited for: then those on the host are not copied, nor large ones widened, which saves their memory.
    """

    def __init__(self, tensors: Sequence[Tensor], *, still: bool = False) -> None:
        self._shapes = [tensor.shape for tensor in tensors]
        self._flats: list[tuple[list[int], Tensor]] = []
        self._events: list[torch.cuda.Event] = []
        self._held: dict[int, Tensor] = {}
        if still:
            self._held = {i: one.detach() for i, one in enumerate(tensors) if one.device.type == "cpu"}
        for device in {one.device: None for i, one in enumerate(tensors) if i not in self._held}:
            places = [place for place, tensor in enumerate(tensors) if tensor.device == device]
            wide = torch.float32 if device.type == "mps" else torch.float64
            flat = torch.cat([tensors[place].detach().to(wide).flatten() for place in places])
            if device.type == "cuda":
                host = torch.empty(flat.shape, dtype=wide, pin_memory=True)
                host.copy_(flat, non_blocking=True)
                event = torch.cuda.Event()  # type: ignore[no-untyped-call]
                event.record(torch.cuda.current_stream(device))
                self._events.append(event)
                flat = host
            self._flats.append((places, flat))
        self.immediate = all(flat.device.type == "cpu" for _, flat in self._flats) and not self._events

    @property
    def arrived(self) -> bool:
        """Can it be read without waiting?"""
        return self.immediate or (bool(self._events) and all(event.query() for event in self._events))  # type: ignore[no-untyped-call]

    def wait(self) -> list[Tensor]:
        """The copies on the host; waits for those that have not arrived."""
        for event in self._events:
            event.synchronize()
        found = {
            place: one if one.numel() > LARGE and one.is_floating_point() else one.double()
            for place, one in self._held.items()
        }
        for places, flat in self._flats:
            parts = torch.split(flat.cpu().double(), [self._shapes[place].numel() for place in places])
            found |= {
                place: part.reshape(self._shapes[place]) for place, part in zip(places, parts, strict=True)
            }
        return [found[place] for place in range(len(self._shapes))]
