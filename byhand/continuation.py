"""A text continued greedily, and why two continuations are the same, or where they part. Bytes are tokens."""

import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


@dataclasses.dataclass(frozen=True)
class Continuation:
    """What one model wrote: `tokens` (N,) int64, and the `logits` (N, V) float64 from which each was chosen."""

    tokens: NDArray
    logits: NDArray

    @property
    def text(self) -> str:
        """The bytes as UTF-8; what is none is shown as �."""
        return self.tokens.astype(np.uint8).tobytes().decode(errors="replace")


def continue_greedily(logits: Callable[[NDArray], NDArray], prompt: bytes, *, count: int, context: int) -> Continuation:
    """The likeliest byte, `count` times; ties go to the lower byte.

    logits : ids (1, T) int64 -> logits of what follows the last of them, (V,); shown at most the last `context` tokens.
    """
    tokens, rows = list(prompt), []
    for _ in range(count):
        rows.append(np.asarray(logits(np.array([tokens[-context:]], dtype=np.int64)), dtype=np.float64)[:256])  # a byte, and no other token
        tokens.append(int(rows[-1].argmax()))
    return Continuation(np.array(tokens[len(prompt) :], dtype=np.int64), np.array(rows))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two continuations of one prompt, as far as they saw the same text.

    parted : int | None   the place of the first byte that differs
    gap : float           the smallest gap between the two best candidates: over all bytes, or at the one where they part
    difference : float    the largest difference between the two models' logits, over the bytes up to there
    """

    parted: int | None
    gap: float
    difference: float

    @property
    def reason(self) -> str:
        """One sentence: why they are equal, or why they part."""
        gap, difference = f"{self.gap:.2g}", f"{self.difference:.2g}"
        if self.parted is not None:
            return (f"They part at byte {self.parted}: there the two best candidates lie only {gap} apart, "
                    f"and the logits of the two implementations differ by up to {difference}.")
        if self.gap > 2 * self.difference:
            return (f"They are equal because at every byte the two best candidates lie at least {gap} apart, more than twice the "
                    f"{difference} by which the logits of the two implementations differ: rounding could not change a choice.")
        return (f"They are equal, but the smallest gap between the two best candidates ({gap}) is within twice the logit difference "
                f"({difference}): at that byte rounding could have changed the choice.")


def compare(one: Continuation, other: Continuation) -> Comparison:
    """Where two continuations part, and by how much their logits differ until then."""
    unequal = np.flatnonzero(one.tokens != other.tokens)
    parted = int(unequal[0]) if unequal.size else None
    seen = slice(None if parted is None else parted + 1)  # the byte at which they part was still chosen from the same text
    best = np.sort(np.stack([one.logits[seen], other.logits[seen]]), axis=-1)[..., -2:]
    gaps = best[..., 1] - best[..., 0]
    gap = (gaps if parted is None else gaps[:, parted]).min()
    return Comparison(parted, float(gap), float(np.abs(one.logits[seen] - other.logits[seen]).max()))
