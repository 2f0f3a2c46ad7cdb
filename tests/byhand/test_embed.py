"""`byhand embed` on a small model made here: what it prints and writes, what the directory says and options overrule, what it refuses."""

import io
import json
import re
import shutil

import numpy as np
import pytest

from byhand import cli
from byhand.commands.embed import closest
from byhand.configs.bert import BertConfig
from byhand.configs.gpt2 import GPT2Config
from byhand.hugging_face.directory import load_hugging_face, save_hugging_face
from byhand.sentence_embedding import SentenceEncoder, _shared_out
from numpy_impl.models.bert import Bert
from numpy_impl.models.gpt2 import GPT2

tokenizers = pytest.importorskip("tokenizers")

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "cat", "dog", "sat", "ran", "on", "a", "mat", "far", "away", "Cat"]
CONFIG = BertConfig(vocabulary=len(WORDS), max_length=12, d_model=8, n_layers=2, n_heads=2)
TEXTS = ["the cat sat on the mat", "a dog ran far away", "the dog sat"]


@pytest.fixture
def model(tmp_path):
    """A sentence encoder as sentence-transformers writes one."""
    path = tmp_path / "model"
    save_hugging_face(path, CONFIG, Bert(CONFIG, rng=np.random.default_rng(0)).state_dict(), kind="Bert")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing("[CLS] $0 [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.enable_padding(length=9)                             # both are for whoever wrote the file, and not for us
    tokenizer.enable_truncation(4)
    tokenizer.save(str(path / "tokenizer.json"))
    write(path, "modules.json", [{"type": f"sentence_transformers.models.{kind}", "path": folder}
                                 for kind, folder in (("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"))])
    write(path, "1_Pooling/config.json", {"word_embedding_dimension": 8, "pooling_mode_mean_tokens": True})
    write(path, "sentence_bert_config.json", {"max_seq_length": 10})
    return path


def write(path, name, values):
    (path / name).parent.mkdir(exist_ok=True)
    (path / name).write_text(json.dumps(values), encoding="utf-8")


def run(capsys, *arguments):
    """(exit code, stdout, stderr)."""
    capsys.readouterr()
    code = cli.main(["embed", *map(str, arguments)])
    printed = capsys.readouterr()
    return code, printed.out, " ".join(printed.err.split())


def vectors(capsys, path, *arguments, texts=TEXTS):
    out = path.parent / "vectors.npy"
    assert run(capsys, path, *texts, "--out", out, *arguments)[0] == cli.OK
    return np.load(out)


def hidden(path, ids):
    """(T, D): what the encoder alone makes of one text's tokens."""
    encoder = Bert(CONFIG)
    encoder.load_state_dict(load_hugging_face(path, kind="Bert")[1])
    return encoder(np.array([ids]))[0]


def test_it_is_the_pooled_output_of_the_encoder(model, capsys):
    found = vectors(capsys, model, texts=["a dog ran far away", "the Dog"])
    for vector, ids in zip(found, ([2, 10, 6, 8, 12, 13, 3], [2, 4, 1, 3]), strict=True):
        mean = hidden(model, ids).mean(0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-6)
    plain = vectors(capsys, model, "--no-normalize", "--pooling", "cls", texts=["the Dog"])
    np.testing.assert_allclose(plain[0], hidden(model, [2, 4, 1, 3])[0], atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_both_backends_and_all_batches_agree(dtype, model, capsys):
    texts = [*TEXTS, "", "cat " * 30]
    want = vectors(capsys, model, "--dtype", dtype, texts=texts)
    assert want.shape == (5, 8) and want.dtype == dtype
    for options in (("--batch", 1), ("--batch", 2), ("--backend", "torch")):
        np.testing.assert_allclose(vectors(capsys, model, "--dtype", dtype, *options, texts=texts), want, rtol=0,
                                   atol=1e-5 if dtype == "float32" else 1e-13)


def test_what_the_directory_says(model, capsys):
    write(model, "1_Pooling/config.json", {"pooling_mode": ["max", "cls"]})
    write(model, "sentence_bert_config.json", {"max_seq_length": 5, "do_lower_case": True})
    code, out, err = run(capsys, model, "The CAT sat on the mat", "a Dog")
    assert code == cli.OK and "2 texts × 16 numbers, float32, max and cls pooling, length 1" in out
    assert "1 text is longer than 5 tokens, and cut off there: number 1" in err
    h = hidden(model, [2, 10, 6, 3])                                # "a dog", in lower case
    both = np.concatenate([h.max(0), h[0]])
    np.testing.assert_allclose(SentenceEncoder(model).embed(["a Dog"]).vectors[0], both / np.linalg.norm(both), atol=1e-6)


def test_a_bert_that_is_said_to_be_no_sentence_encoder_is_told_of(model, capsys):
    (model / "modules.json").unlink()
    code, out, err = run(capsys, model, "the cat")
    assert code == cli.OK and "1 text × 8 numbers, float32, mean pooling\n" in out
    assert "has no modules.json: it is not said to be a sentence encoder, and mean pooling is an assumption" in err


def test_a_prompt_stands_before_queries_and_another_before_texts(model, capsys):
    plain = SentenceEncoder(model)
    write(model, "config_sentence_transformers.json", {"prompts": {"query": "the cat ", "document": "a "}})
    code, out, _ = run(capsys, model, "dog", "cat sat", "--query", "sat", "--top", 1)
    asked, answers = plain.embed(["the cat sat"]).vectors[0], plain.embed(["a dog", "a cat sat"]).vectors
    best = (answers @ asked).argmax()
    assert code == cli.OK and out.splitlines()[1:] == [f"{answers[best] @ asked:8.4f}  {best + 1}  {['dog', 'cat sat'][best]}"]
    write(model, "config_sentence_transformers.json", {"prompts": {"any": "far "}, "default_prompt_name": "any"})
    np.testing.assert_allclose(vectors(capsys, model, texts=["away"]), plain.embed(["far away"]).vectors, atol=1e-6)


def test_texts_come_from_a_file_or_the_standard_input(model, capsys, monkeypatch, tmp_path):
    lines = tmp_path / "lines.txt"
    lines.write_bytes("the cat\r\n\na\u2028dog\n".encode())         # an empty line is a text too, so that vectors go with lines
    code, _, _ = run(capsys, model, "--file", lines, "--out", tmp_path / "a.json")
    entries = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert code == cli.OK and [entry["text"] for entry in entries] == ["the cat", "", "a\u2028dog"]
    monkeypatch.setattr("sys.stdin", io.StringIO("the cat\n\na\u2028dog"))
    code, out, _ = run(capsys, model)
    assert code == cli.OK and out.startswith("3 texts × 8 numbers") and out.count("\n") == 4
    want = entries[0]["vector"][:4]
    np.testing.assert_allclose([float(n) for n in re.findall(r"-?\d+\.\d+", out.splitlines()[1])], want, atol=1e-4)


def test_a_query_ranks_all_texts(model, capsys):
    code, out, _ = run(capsys, model, *TEXTS, "--query", "the dog sat", "--top", 9)
    ranked = [line.split(maxsplit=2) for line in out.splitlines()[1:]]
    assert code == cli.OK and ranked[0] == ["1.0000", "3", "the dog sat"]
    assert sorted((int(number), text) for _, number, text in ranked) == list(enumerate(TEXTS, 1))
    assert [float(cosine) for cosine, *_ in ranked] == sorted((float(cosine) for cosine, *_ in ranked), reverse=True)


def test_equal_texts_have_equal_vectors_and_keep_their_order(model):
    texts = [TEXTS[i % 3] if i % 2 else "the mat" for i in range(91)]
    encoder = SentenceEncoder(model)
    found = encoder.embed(texts, batch=7)
    assert found.tokens == sum(len(ids) for ids in ([2, 4, 10, 3], [2, 4, 5, 7, 9, 4, 10, 3], [2, 10, 6, 8, 12, 13, 3], [2, 4, 6, 7, 3]))
    assert len({vector.tobytes() for vector in found.vectors}) == 4
    np.testing.assert_allclose(found.vectors[1], encoder.embed([texts[1]]).vectors[0], atol=1e-6)
    ranked = closest(encoder.embed(["a cat"]).vectors[0], found.vectors)
    same = [i for i, _ in ranked if i % 2 == 0]
    assert same == sorted(same)
    rng = np.random.default_rng(0)                                 # of rows that are equal a product may differ by their places
    rows = np.tile(rng.standard_normal(384).astype(np.float32), (91, 1))
    assert [i for i, _ in closest(rng.standard_normal(384).astype(np.float32), rows)] == list(range(91))


def test_a_place_that_vectors_cannot_go_to_is_refused_before_any_work(model, capsys, tmp_path, monkeypatch):
    (tmp_path / "here.npy").mkdir()
    monkeypatch.setattr(SentenceEncoder, "embed", None)
    code, _, err = run(capsys, model, "cat", "--out", tmp_path / "here.npy")
    assert code == cli.WRONG_USAGE and "--out as a file that can be written" in err


@pytest.mark.parametrize(("arguments", "complaint"), [
    (["--batch", "0", "cat"], "batch as an integer >= 1"),
    (["--query", " ", "cat"], "a query with words in it"),
    (["--top", "3", "cat"], "--query, for the closest to it to be told, with --top"),
    (["--query", "cat", "--top", "0", "cat"], "top as an integer >= 1"),
    (["--out", "x.txt", "cat"], "--out to end with .npy or .json"),
    (["--out", "nowhere/x.npy", "cat"], "--out in a directory that exists"),
    (["--file", "nowhere.txt"], "a file it can read; nowhere.txt: No such file"),
    (["--file", __file__, "cat"], "texts or --file, not both"),
    (["--device", "cuda", "cat"], "the torch backend for a device other than the CPU"),
    (["\udcff"], "texts in Unicode"),
    ([], "texts in the standard input"),
])
def test_wrong_usage_is_refused(arguments, complaint, model, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(" \n"))
    code, out, err = run(capsys, model, *arguments)
    assert code == cli.WRONG_USAGE and out == "" and complaint in err


def _without(name):
    return lambda path: (path / name).unlink()


def _with(name, values):
    return lambda path: write(path, name, values)


def _linked(name):
    def damage(path):
        (path / name).rename(path.parent / "elsewhere")
        (path / name).symlink_to(path.parent / "elsewhere")
    return damage


def _modules(*kinds, path=""):
    return _with("modules.json", [{"type": kind, "path": path} for kind in kinds])


def _gpt2(path):
    config = GPT2Config(vocabulary=5, max_length=4, d_model=4, n_layers=1, n_heads=1)
    save_hugging_face(path, config, GPT2(config).state_dict())


def _not_finite(path):
    state = Bert(CONFIG).state_dict()
    state["norm.weight"][0] = np.nan
    save_hugging_face(path, CONFIG, state, kind="Bert")


def test_a_name_that_is_too_long_is_refused(capsys):
    code, _, err = run(capsys, "a" * 300, "the cat")
    assert code == cli.WRONG_USAGE and "the directory of a model" in err


@pytest.mark.parametrize(("damage", "complaint"), [
    (shutil.rmtree, "the directory of a model"),
    (_without("config.json"), "config.json: No such file"),
    (_without("model.safetensors"), "model.safetensors"),
    (_without("tokenizer.json"), "a tokenizer.json in"),
    (_with("tokenizer.json", {"version": "1.0"}), "a whole tokenizer.json"),
    (_gpt2, "an encoder, a BERT; "),
    (_not_finite, "weights that make finite vectors"),
    (_with("config.json", {"model_type": "roberta"}), "roberta"),
    (_with("modules.json", {}), "a list in"),
    (_with("modules.json", ["Transformer"]), "a type and a path for every module"),
    (_modules("a.Transformer", "a.Pooling", "a.Dense"), "'Dense'"),
    (_modules("a.Pooling", "a.Transformer"), "a Transformer, a Pooling and perhaps a Normalize, in this order"),
    (_modules("a.Transformer", "a.Pooling", "b.Pooling"), "one Pooling in"),
    (_modules("a.Transformer", path="../elsewhere"), "that stay in the directory"),
    (_without("1_Pooling/config.json"), "config.json: No such file"),
    (_with("1_Pooling/config.json", {"pooling_mode": "medain"}), "did you mean 'mean'?"),
    (_with("sentence_bert_config.json", {"max_seq_length": "many"}), "max_length >= 1"),
    (_with("sentence_bert_config.json", {"max_seq_length": 5.5}), "max_length >= 1"),
    (_with("tokenizer_config.json", {"padding_side": "left"}), "padding_side from 'right'"),
    (_with("tokenizer_config.json", {"strip_accents": "no"}), "strip_accents from True, False"),
    (_linked("tokenizer.json"), "files beside each other"),
    (_linked("modules.json"), "files beside each other"),
    (_linked("1_Pooling/config.json"), "files beside each other"),
    (_with("sentence_bert_config.json", {"max_seq_length": 2}), "room for a token between the 2 that mark the ends"),
    (_with("config_sentence_transformers.json", {"prompts": {"query": 1}}), "prompts by name"),
    (_with("config_sentence_transformers.json", {"prompts": {"query": "q"}, "default_prompt_name": "querry"}), "default_prompt_name"),
])
def test_a_directory_that_will_not_do_is_refused(damage, complaint, model, capsys):
    damage(model)
    code, out, err = run(capsys, model, "the cat")
    assert code == cli.WRONG_USAGE and out == "" and complaint in err


def test_less_than_half_of_a_batch_is_padding():
    lengths = np.random.default_rng(0).integers(0, 300, 200).tolist()
    parts = _shared_out(lengths, 32)
    assert sorted(i for part in parts for i in part) == list(range(200)) and max(map(len, parts)) <= 32
    assert all(2 * min(lengths[i] for i in part) >= max(lengths[i] for i in part) for part in parts)
    assert len(parts) < 200 / 32 + 10
