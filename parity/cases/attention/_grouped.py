"""What no law can see in the attention of groups."""

from parity.cases.attention.scaled_dot_product import _PIECES, _TRIANGLE

_SKIPPED = "keys that no query of the strip may see are then computed and masked, not skipped"

EQUIVALENT = {
    "rows.start + s - t -> -t": _TRIANGLE,
    "rows.start + s -> rows.start - s": _TRIANGLE,
    "rows.start + s -> s": _TRIANGLE,
    "rows.start + s -> rows.start": _TRIANGLE,
    "random_bits(noise, shape) >= round(dropout * 2 ** 32) -> random_bits(noise, shape) > round(dropout * 2 ** 32)":
        "differs once in 2^32 words",
    "0.0 if dropout == 1 else 1 / (1 - dropout) -> 1.0 if dropout == 1 else 1 / (1 - dropout)":
        "where everything is dropped, nothing is left to grow",
    "64 if causal else 256 -> 65 if causal else 256": _PIECES,
    "64 if causal else 256 -> 64 if causal else 257": _PIECES,
    "math.prod(shape[-3:]) // 4 -> math.prod(shape[-3:]) % 4": _PIECES,
    "math.prod(shape[-3:]) // 4 -> math.prod(shape[-3:]) // 5": _PIECES,
    "shape[-3:] -> shape[3:]": _PIECES,
    "shape[-3:] -> shape[-2:]": _PIECES,
    "stop + s - t -> stop + s + t": _SKIPPED,
    "stop + s - t -> stop + s": _SKIPPED,
    "max(stop + s - t, 0) -> max(stop + s - t, 1)": "one more key is computed and masked",
}
