"""Hand-written norms, recognised by what they do: the graph proposes, the numbers decide."""

from normdoctor.tracing.handwritten.search import find, with_handwritten

__all__ = ["find", "with_handwritten"]
