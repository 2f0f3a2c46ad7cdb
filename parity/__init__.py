"""Check that two implementations agree, in outputs and in gradients: `parity.check` and `parity.compare`."""

from parity.library import check, compare

__all__ = ["check", "compare"]
