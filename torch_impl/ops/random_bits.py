"""Random bits from a counter: Philox4x32-10 (Salmon, Moraes, Dror & Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3", SC '11)."""

import math

import torch
from torch import Tensor

from byhand.checks import demand, inside, size
from byhand.noise import Noise

_LOW = 0xFFFFFFFF
_BLOCKS = 32768  # counters worked on together on a CPU, so that they stay in its cache


def random_bits(
    noise: Noise, shape: tuple[int, ...], *, part: tuple[tuple[int, int], ...] | None = None, device: torch.device | str | None = None
) -> Tensor:
    """bits[i] = word i mod 4 of Philox(counter = (⌊i / 4⌋, *noise.counter), key = noise.key),  i counting the entries in C order.

    -> uint32 of `shape`, the same bits on every device. torch compares no uint32: cast to int64 first. `part`, a (start, stop) for
    every axis, makes these entries and no others.
    """
    demand("random_bits", isinstance(noise, Noise), "noise as a byhand.noise.Noise", noise=noise)
    demand("random_bits", isinstance(shape, (tuple, list)), "shape as a tuple of sizes", shape=shape)
    for n in shape:
        size("random_bits", at_least=0, shape=n)
    count = math.prod(shape)
    demand("random_bits", count <= 1 << 34, "a shape of at most 2^34 entries", shape=shape)
    inside("random_bits", shape, part=part)

    if not part:
        return _words(noise, torch.arange(-(-count // 4), device=device)).view(-1)[:count].view(shape)
    starts = torch.zeros(1, dtype=torch.int64, device=device)
    *outer, (first, last) = part
    for (start, stop), n in zip(outer, shape[1:], strict=True):
        starts = ((starts[:, None] + torch.arange(start, stop, device=device)) * n).view(-1)
    starts, length = starts + first, last - first
    counters = starts[:, None] // 4 + torch.arange((length + 6) // 4, device=device)  # enough wherever in its counter a row begins
    words = _words(noise, counters.view(-1)).view(len(starts), 4 * counters.shape[1])
    mine = starts[:, None] % 4 + torch.arange(length, device=device)
    bits = words.view(torch.int32).gather(1, mine).view(torch.uint32)
    return bits.view([stop - start for start, stop in part])


def _words(noise: Noise, counters: Tensor) -> Tensor:
    """(N, 4): the four words of each of N counters."""
    c1, c2, c3 = noise.counter
    words = torch.empty(len(counters), 4, dtype=torch.uint32, device=counters.device)
    step = _BLOCKS if words.device.type == "cpu" else max(len(counters), 1)
    for start in range(0, len(counters), step):
        out = words[start:start + step]
        pairs = torch.empty(2, len(out), dtype=torch.int64, device=counters.device)
        pairs[0] = counters[start:start + step] << 32 | c1
        pairs[1] = _signed(c2 << 32 | c3)
        _encrypt(pairs, noise.key)
        out[:, 0::2] = (pairs >> 32 & _LOW).T
        out[:, 1::2] = (pairs & _LOW).T
    return words


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
