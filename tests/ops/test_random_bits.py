"""Philox4x32-10 against the known answers that its authors publish (Random123, examples/kat_vectors), and how entries are counted."""

import numpy as np
import pytest
import torch

import numpy_impl.ops.random_bits as ours
import torch_impl.ops.random_bits as theirs
from byhand.noise import Noise

KNOWN_ANSWERS = [  # counter words 0 to 3, key words 0 and 1, output words 0 to 3
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text):
    return tuple(int(word, 16) for word in text.split())


@pytest.mark.parametrize("counter, key, answer", KNOWN_ANSWERS)
def test_known_answers(counter, key, answer):
    c0, c1, c2, c3 = words(counter)
    a0, a1, a2, a3 = words(answer)
    pairs, want = [c0 << 32 | c1, c2 << 32 | c3], [a0 << 32 | a1, a2 << 32 | a3]
    array = np.array(pairs, dtype=np.uint64)[:, None]
    ours._encrypt(array, words(key))
    assert array.ravel().tolist() == want
    tensor = torch.from_numpy(np.array(pairs, dtype=np.uint64).view(np.int64))[:, None]
    theirs._encrypt(tensor, words(key))
    assert tensor.numpy().view(np.uint64).ravel().tolist() == want


def test_entry_i_is_word_i_mod_4_of_counter_i_div_4():
    noise = Noise(seed=0xA4093822_299F31D0, step=7, site=0x0123456789ABCDEF)
    bits = ours.random_bits(noise, (3, 7))
    for i, word in enumerate(bits.ravel().tolist()):
        assert word == random_word((i // 4 << 32 | 7, 0x89ABCDEF_01234567), (0x299F31D0, 0xA4093822), i % 4)


def test_blocks_of_counters_join():
    noise = Noise(seed=3)
    for count in (4 * ours._BLOCKS, 4 * theirs._BLOCKS):
        longer = ours.random_bits(noise, (count + 9,))
        assert np.array_equal(longer[:count - 1], ours.random_bits(noise, (count - 1,)))
        assert np.array_equal(longer, theirs.random_bits(noise, (count + 9,)).numpy())


def test_a_part_is_made_without_the_rest():
    noise, n = Noise(seed=5, step=1), 1 << 17                          # 64 GiB of bits, of which 21 words are wanted
    part = ((n - 3, n), (n - 9, n - 2))
    bits = ours.random_bits(noise, (n, n), part=part)
    c1, c2, c3 = noise.counter
    places = range((n - 2) * n + n - 9, (n - 2) * n + n - 2)           # of the middle row's entries, in the whole array
    assert bits[1].tolist() == [random_word((i // 4 << 32 | c1, c2 << 32 | c3), noise.key, i % 4) for i in places]
    assert np.array_equal(bits, theirs.random_bits(noise, (n, n), part=part).numpy())


def random_word(pairs, key, i):
    """Word i of one counter, given as two pairs of words."""
    pair = np.array(pairs, dtype=np.uint64)[:, None]
    ours._encrypt(pair, key)
    first, second = pair.ravel().tolist()
    return (first >> 32, first & 0xFFFFFFFF, second >> 32, second & 0xFFFFFFFF)[i]


def test_bits_are_uniform():
    bits = ours.random_bits(Noise(seed=11, step=2, site=5), (1 << 18,))
    ones = (bits[:, None] >> np.arange(32, dtype=np.uint32) & 1).mean(0)   # how often each of the 32 bits is set
    assert np.abs(ones - 0.5).max() < 5 * 0.5 / 2**9
    assert len(np.unique(bits)) > bits.size - 30                            # 8 pairs of equal words are expected


@pytest.mark.gpu
def test_the_same_bits_on_a_gpu():
    noise = Noise(seed=2**63 + 5, step=2**31, site=2**64 - 1)
    for shape in ((), (0, 3), (5,), (300, 501)):
        got = theirs.random_bits(noise, shape, device="cuda")
        assert got.is_cuda
        assert np.array_equal(got.cpu().numpy(), ours.random_bits(noise, shape))
