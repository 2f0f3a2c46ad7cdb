"""Text as it comes is the beginning of the whole text, whatever tokens follow; strings to stop at are found wherever tokens are cut."""

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from byhand.text_stream import ByteText, TextStream, TokenText, open_tokenizer

tokenizers = pytest.importorskip("tokenizers")

TEXT = ["the cat sat on the mat, and said: déjà vu! 😀 naïve 日本語 …", "  two spaces\nand a line\tor two 🤔🤔", "1 + 2 = 3; x = f(y)"] * 5


@functools.cache
def tokenizer(kind):
    """As GPT-2's, Llama's, T5's, and words without a decoder."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    if kind == "words":
        made = Tokenizer(models.WordLevel({"one": 0, "two": 1, "three": 2, "?": 3}, unk_token="?"))
        made.pre_tokenizer = pre_tokenizers.Whitespace()
    elif kind == "gpt2":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        made.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=320, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                                           special_tokens=["<end>"]))
    elif kind == "llama":
        vocabulary = {token: i for i, token in enumerate(
            ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *"▁abcdehimnost,.", "▁t", "▁th", "▁the", "at", "▁▁"])}
        merges = [("▁", "t"), ("▁t", "h"), ("▁th", "e"), ("a", "t"), ("▁", "▁")]
        made = Tokenizer(models.BPE(vocabulary, merges, byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
        made.add_special_tokens(["<unk>", "<s>", "</s>"])
    else:
        made = Tokenizer(models.Unigram())
        made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        made.train_from_iterator(TEXT, trainers.UnigramTrainer(vocab_size=120, special_tokens=["<pad>", "</s>"], unk_token="<unk>"))
    return made


def stream_of(made, before=()):
    return TokenText(made.decode, before=before, token=made.id_to_token)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "t5", "words"])
@given(data=st.data())
def test_the_pieces_are_the_text_of_all_tokens(kind, data):
    made = tokenizer(kind)
    before = made.encode(data.draw(st.sampled_from(["", " ", "the cat", "at 😀", *TEXT[:3]]))).ids
    ids = data.draw(st.lists(st.integers(0, made.get_vocab_size() - 1), max_size=20))
    if kind == "llama" and data.draw(st.booleans()):            # bytes of letters, whole and cut
        ids = [3 + byte for byte in "é😀a日".encode()[data.draw(st.integers(0, 3)) :]] + ids
        ids.insert(data.draw(st.integers(0, 8)), 0)             # and among them a token that is skipped
    stream = stream_of(made, before)
    pieces = [stream.push(token) for token in ids]
    assert "".join([*pieces, stream.finish()]) == made.decode([*before, *ids])[len(made.decode(before)) :]


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_text_comes_as_soon_as_it_is_whole(kind):
    made = tokenizer(kind)
    ids = made.encode("the cat said: 😀 the mat").ids
    stream = stream_of(made)
    given_out, late = "", 0
    for n, token in enumerate(ids):
        given_out += stream.push(token)
        whole = made.decode(ids[: n + 1])
        late = max(late, len(whole) - len(given_out))
        assert whole.startswith(given_out) and (given_out == whole or whole.endswith("\ufffd"))
    assert late <= 1


def test_the_window_stays_small():
    made = tokenizer("gpt2")
    widths = []
    stream = TokenText(lambda ids: (widths.append(len(ids)), made.decode(ids))[1])
    for token in made.encode("the cat sat on the mat " * 50).ids:
        stream.push(token)
    assert len(widths) > 200 and max(widths) <= 4


def first_end(text, stop):
    """(where the text is cut, by which string): letter by letter."""
    for end in range(len(text) + 1):
        there = [word for word in stop if text[:end].endswith(word)]
        if there:
            word = max(there, key=len)
            return end - len(word), word
    return len(text), None


@given(st.text("ab\né", max_size=12), st.lists(st.text("ab\né", min_size=1, max_size=4), max_size=3), st.randoms())
def test_strings_to_stop_at_are_found_however_the_text_is_cut(text, stop, random):
    class Cut:
        def push(self, piece):
            return piece

        def finish(self):
            return ""

    stream, at, out = TextStream(Cut(), stop=stop), 0, []
    while at < len(text):
        n = random.randint(1, 4)
        out.append(stream.push(text[at : at + n]))
        at += n
        end, word = first_end(text[:at], stop)
        longest = max((n for s in stop for n in range(len(s)) if text[:at].endswith(s[:n])), default=0) if word is None else 0
        assert "".join(out) == stream.text == text[: end - longest] and stream.stopped == word     # all that is sure, and no more
    out.append(stream.finish())
    assert "".join(out) == stream.text == text[: first_end(text, stop)[0]] and stream.finish() == ""


@given(st.binary(max_size=20))
def test_bytes_become_letters_and_what_is_none_is_shown(content):
    stream = ByteText()
    pieces = [stream.push(byte) for byte in content]
    assert stream.push(300) == ""
    assert "".join([*pieces, stream.finish()]) == content.decode(errors="replace")
    sure = "".join(pieces)
    more = np.frombuffer(content, np.uint8).tolist()
    assert (bytes(more) + b"\x80a").decode(errors="replace").startswith(sure)


def test_what_it_refuses(tmp_path):
    with pytest.raises(ValueError, match="stop as strings, none of them empty"):
        TextStream(ByteText(), stop=("a", ""))
    with pytest.raises(ValueError, match=r"a tokenizer\.json in"):
        open_tokenizer(tmp_path)
    for content in ("{}", "{", '{"model": {"type": "BPE", "vocab": 3}}'):
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(ValueError, match=r"a whole tokenizer\.json"):
            open_tokenizer(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tokenizer.json").symlink_to(tmp_path / "tokenizer.json")
    with pytest.raises(ValueError, match="open_tokenizer needs files beside each other"):
        open_tokenizer(tmp_path / "model")
