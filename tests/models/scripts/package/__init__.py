"""A package whose modules import each other relatively."""

from .version import VERSION
