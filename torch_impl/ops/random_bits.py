"""Random bits from a counter: Philox4x32-10 (Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", SC '11)."""

import math

import torch
from torch import Tensor

from byhand.checks import demand, size
from byhand.noise import Noise

_LOW = 0xFFFFFFFF
_BLOCKS = 32768  # counters worked on together on a CPU, so that they stay in its cache


def random_bits(noise: Noise, shape: tuple[int, ...], *, device: torch.device | str | None = None) -> Tensor:
    """bits[i] = word i mod 4 of Philox(counter = (⌊i / 4⌋, *noise.counter), key = noise.key),  i counting the entries in C order.

    -> uint32 of `shape`, the same bits on every device. torch compares no uint32: cast to int64 first.
    """
    demand("random_bits", isinstance(noise, Noise), "noise as a byhand.noise.Noise", noise=noise)
    demand("random_bits", isinstance(shape, (tuple, list)), "shape as a tuple of sizes", shape=shape)
    for n in shape:
        size("random_bits", at_least=0, shape=n)
    count = math.prod(shape)
    demand("random_bits", count <= 1 << 34, "a shape of at most 2^34 entries", shape=shape)

    blocks = -(-count // 4)
    c1, c2, c3 = noise.counter
    bits = torch.empty(blocks, 4, dtype=torch.uint32, device=device)
    step = _BLOCKS if bits.device.type == "cpu" else max(blocks, 1)
    for start in range(0, blocks, step):
        out = bits[start:start + step]
        pairs = torch.empty(2, len(out), dtype=torch.int64, device=device)
        pairs[0] = torch.arange(start, start + len(out), device=device) << 32 | c1
        pairs[1] = _signed(c2 << 32 | c3)
        _encrypt(pairs, noise.key)
        out[:, 0::2] = (pairs >> 32 & _LOW).T
        out[:, 1::2] = (pairs & _LOW).T
    return bits.view(-1)[:count].view(shape)


def _encrypt(pairs: Tensor, key: tuple[int, int]) -> None:
    """Ten rounds of Philox in place, on rows of 64-bit pairs, c0·2³² + c1 and c2·2³² + c3.

    The 64 bits live in int64: products and left shifts wrap as those of unsigned numbers do, right shifts need a mask.
    """
    multipliers = torch.tensor([[0xCD9E8D57], [0xD2511F53]], device=pairs.device)
    keys, weyl = torch.tensor([key, (0x9E3779B9, 0xBB67AE85)], device=pairs.device)[:, :, None]
    for _ in range(10):
        products = pairs.flip(0).bitwise_right_shift_(32).bitwise_and_(_LOW).mul_(multipliers)
        pairs.bitwise_xor_(keys).bitwise_left_shift_(32).bitwise_xor_(products)
        keys = (keys + weyl) & _LOW


def _signed(word: int) -> int:
    """The int64 with the bits of an unsigned 64-bit word."""
    return word - (1 << 64) if word >> 63 else word
