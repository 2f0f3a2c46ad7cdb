"""What every component is fed. A case file imports its vocabulary from here; docs/adding_a_component.md explains it."""

from parity.registry import case
from parity.values import array, dims, flag, ids, integer, left_out, mask, maybe, noise, number, one_of, size

__all__ = ["array", "case", "dims", "flag", "ids", "integer", "left_out", "mask", "maybe", "noise", "number", "one_of", "size"]
