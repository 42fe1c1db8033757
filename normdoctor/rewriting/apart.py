"""Is the copy of a model one? Nothing of the model is in it, and its forward calls no layer of the model."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from normdoctor.errors import RewriteError
from normdoctor.loading.state import inventory

_HINT = "Pass inplace=True to change the model itself."


@contextmanager
def apart(model: nn.Module, made: nn.Module, hint: str = _HINT) -> Iterator[None]:
    """Keep `model` as it is while `made`, its copy, is run and changed.

    A lambda or another closure is not copied: what it holds is the original's, and running the copy would
    run that, and update its running statistics.

    Raises:
        RewriteError: The copy shares layers or tensors with the model, or its forward calls them.
    """
    held = {id(entry.module): entry.path for entry in inventory(model).modules.values()}
    _demand_disjoint(model, made, held, hint)
    met: list[str] = []
    own_thread = threading.get_ident()

    def refuse(module: nn.Module, _: Any) -> None:
        if id(module) in held and threading.get_ident() == own_thread:
            met.append(held[id(module)])
            raise _calls(met[0], hint)

    handle = register_module_forward_pre_hook(refuse)
    try:
        yield
    except Exception as error:
        if met:
            raise _calls(met[0], hint) from error
        raise
    finally:
        handle.remove()
    if met:
        raise _calls(met[0], hint)


def _calls(path: str, hint: str) -> RewriteError:
    where = f"`{path}`" if path else "the model itself"
    return RewriteError(
        f"the model cannot be copied: the forward of its copy calls {where} of the original, "
        "which a lambda or another closure holds",
        hint=hint,
    )


def _demand_disjoint(model: nn.Module, made: nn.Module, held: dict[int, str], hint: str) -> None:
    for entry in inventory(made).modules.values():
        if id(entry.module) in held:
            raise RewriteError(f"the model cannot be copied: its copy shares {_named(entry.path)}", hint=hint)
    tensors = {id(one) for one in (*model.parameters(), *model.buffers())}
    for name, one in (*made.named_parameters(), *made.named_buffers()):
        if id(one) in tensors:
            raise RewriteError(f"the model cannot be copied: its copy shares `{name}`", hint=hint)


def _named(path: str) -> str:
    return f"`{path}`" if path else "all that it is"
