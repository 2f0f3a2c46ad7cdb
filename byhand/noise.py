"""Randomness as an argument: which stream of random bits a forward pass reads.

A `Noise` is a name for a stream, not a generator: it holds no state, and the same name always gives the same bits, on both
sides of the mirror and on every device (`ops.random_bits` turns it into bits with Philox4x32-10). A forward that is run again,
to recompute what was dropped or to check it on another backend, therefore sees the same dropout masks without being told.
"""

import dataclasses
import hashlib


@dataclasses.dataclass(frozen=True)
class Noise:
    """The stream of one site (a dropout layer, say) in one forward pass of one seeded run.

    Parameters
    ----------
    seed : int   which run, 0 ≤ seed < 2⁶⁴; the Philox key
    step : int   which forward pass, 0 ≤ step < 2³²; micro-batches of one update have steps of their own
    site : int   which place in the model, 0 ≤ site < 2⁶⁴; made by `at`

    Examples
    --------
    >>> noise = Noise(seed=7, step=3)
    >>> at(at(noise, "blocks"), "attn") == at(at(noise, "blocks"), "attn")
    True
    >>> at(noise, "attn").site == at(noise, "mlp").site
    False
    """

    seed: int
    step: int = 0
    site: int = 0

    def __post_init__(self) -> None:
        for name, bits in (("seed", 64), ("step", 32), ("site", 64)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << bits:
                raise ValueError(f"Noise needs {name} as an integer in [0, 2^{bits}); got {name}={value!r}")

    @property
    def key(self) -> tuple[int, int]:
        """The two 32-bit key words, low word first."""
        return self.seed & 0xFFFFFFFF, self.seed >> 32

    @property
    def counter(self) -> tuple[int, int, int]:
        """Counter words 1 to 3; word 0 counts the blocks of four outputs."""
        return self.step, self.site & 0xFFFFFFFF, self.site >> 32


def at(noise: Noise | None, name: str) -> Noise | None:
    """The stream of the child called `name`; None (inference) stays None.

    The path from the model's root is hashed step by step, so a child's stream depends on where it stands and on nothing else.
    """
    if noise is None:
        return None
    digest = hashlib.blake2b(noise.site.to_bytes(8, "little") + name.encode(), digest_size=8).digest()
    return dataclasses.replace(noise, site=int.from_bytes(digest, "little"))
