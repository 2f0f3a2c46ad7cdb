"""`byhand draw attention`: from every kind of source, as every kind of picture."""

import base64
import dataclasses
import json
import re

import numpy as np
import pytest

from byhand import cli
from byhand.attention_maps import attention_maps
from byhand.configs.decoder import DecoderConfig
from byhand.configs.llama import LlamaConfig
from byhand.hugging_face.directory import save_hugging_face
from byhand.model_source import as_bytes, open_model
from byhand.run_directory import save_weights
from numpy_impl.models.decoder import Decoder
from numpy_impl.models.llama import Llama

CONFIG = DecoderConfig(vocabulary=256, max_length=64, d_model=8, n_layers=2, n_heads=2)
LLAMA = LlamaConfig(vocabulary=300, max_length=64, d_model=8, n_layers=1, n_heads=2, d_hidden=8)


@pytest.fixture
def variant(tmp_path):
    """A file as an experiment leaves it."""
    state = Decoder(CONFIG, rng=np.random.default_rng(5)).state_dict()
    return save_weights(tmp_path / "rotary-0.safetensors", state, model="Decoder", config=json.dumps(dataclasses.asdict(CONFIG)))


def draw(*arguments):
    return cli.main(["draw", "attention", *map(str, arguments)])


def page_data(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"(src|href)\s*=|https?:|@import|url\(", text)   # it needs nothing else
    return json.loads(re.search(r"<script type=application/json id=data>(.*?)</script>", text, re.DOTALL)[1])


def test_a_page_holds_the_weights_of_every_head(tmp_path, variant):
    out = tmp_path / "new" / "page.html"
    assert draw(variant, "--text", "a </script>b", "--out", out) == 0
    data = page_data(out)
    assert data["texts"] == {"ids": ["a", "␣", *"</script>b"]}
    wanted = attention_maps(open_model(str(variant)).model, np.array([list(b"a </script>b")]))
    assert [(layer["name"], layer["heads"]) for layer in data["layers"]] == [("blocks.0.attn", [0, 1]), ("blocks.1.attn", [0, 1])]
    for layer, want in zip(data["layers"], wanted, strict=True):
        weights = np.frombuffer(base64.b64decode(layer["weights"]), "<u2") / 65535
        np.testing.assert_allclose(weights.reshape(want.weights.shape), want.weights, rtol=0, atol=0.5001 / 65535)


def test_a_layer_and_a_head_are_chosen_by_number_or_name(tmp_path, variant, capsys):
    out = tmp_path / "page.html"
    for layer in ("1", "blocks.1.attn"):
        assert draw(variant, "--layer", layer, "--head", 1, "--out", out) == 0
        (found,) = page_data(out)["layers"]
        assert (found["name"], found["heads"]) == ("blocks.1.attn", [1])
    assert "1 head on 32 tokens" in capsys.readouterr().out


def test_pictures_are_what_their_names_say(tmp_path, variant):
    pytest.importorskip("matplotlib")
    assert draw(variant, "--out", tmp_path / "all.png", "--text", "x" * 60) == 0
    assert (tmp_path / "all.png").read_bytes().startswith(b"\x89PNG")
    assert draw(variant, "--layer", 0, "--head", 0, "--text", "word", "--out", tmp_path / "one.SVG") == 0
    svg = (tmp_path / "one.SVG").read_text(encoding="utf-8")
    written = re.findall(r"<text[^>]*>([^<]*)</text>", svg)                # text that can be searched
    assert [written.count(letter) for letter in "word"] == [2, 2, 2, 2] and "key: the token attended to" in written
    assert draw(variant, "--layer", 0, "--head", 0, "--text", "word", "--out", tmp_path / "two.svg") == 0
    assert svg == (tmp_path / "two.svg").read_text(encoding="utf-8")       # the same weights, the same file


def test_presets_runs_and_hugging_face_directories_are_sources(tmp_path):
    out = tmp_path / "page.html"
    assert draw("llama-nano", "--out", out) == 0 and len(page_data(out)["layers"]) == 2

    (tmp_path / "text").write_text("some text to be trained on, " * 99)
    run = tmp_path / "run"
    options = ["--preset", "gpt2-nano", "--steps", "1", "--batch", "2", "--length", "8", "--sample", "0", "--validation-batches", "1"]
    assert cli.main(["train", "--text", str(tmp_path / "text"), "--out", str(run), *options]) == 0
    assert draw(run, "--out", out) == 0 and open_model(str(run)).title == "gpt2-nano, run/numpy-best.safetensors"

    tokenizers = pytest.importorskip("tokenizers")
    directory = save_hugging_face(tmp_path / "hub", LLAMA, Llama(LLAMA, rng=np.random.default_rng(0)).state_dict())
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"▁def": 7, "Ġadd": 299, "Ċ": 1, "?": 0}, unk_token="?"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    words.save(str(directory / "tokenizer.json"))
    assert draw(directory, "--text", "▁def Ġadd Ċ", "--out", out) == 0
    assert page_data(out)["texts"] == {"ids": ["␣def", "␣add", "↵"]}
    (directory / "tokenizer.json").write_text('{"added_tokens": 3}')
    assert draw(directory, "--out", out) == 2
    (directory / "tokenizer.json").unlink()
    assert draw(directory, "--ids", "1, 2 299", "--out", out) == 0
    assert page_data(out)["texts"] == {"ids": ["1", "2", "299"]}


def test_a_model_that_reads_one_text_and_writes_another_crosses_them(tmp_path):
    out = tmp_path / "page.html"
    assert draw("transformer-nano", "--text", "I see", "--target", "ich sehe", "--out", out) == 0
    data = page_data(out)
    assert {name: "".join(tokens) for name, tokens in data["texts"].items()} == {"source": "I␣see", "target": "ich␣sehe"}
    assert [(layer["name"], layer["queries"], layer["keys"]) for layer in data["layers"]][1:4] == [
        ("encoder.1.attn", "source", "source"), ("decoder.0.attn", "target", "target"), ("decoder.0.cross_attn", "target", "source"),
    ]
    assert draw("bert-nano", "--text", "I see", "--layer", 1, "--out", out) == 0      # and BERT looks both ways
    (layer,) = page_data(out)["layers"]
    assert (np.frombuffer(base64.b64decode(layer["weights"]), "<u2") > 0).all()


def test_bert_and_t5_are_drawn_from_directories_of_transformers(tmp_path):
    transformers, tokenizers = pytest.importorskip("transformers"), pytest.importorskip("tokenizers")
    torch = pytest.importorskip("torch")
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"I": 7, "see": 5, "ich": 1, "sehe": 2, "dich": 3, "?": 0}, unk_token="?"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    out = tmp_path / "page.html"

    def drawn(theirs, *arguments):
        """The layers of the page by name, beside what transformers says of the same model and its sizes."""
        torch.manual_seed(0)
        for parameter in theirs.parameters():
            parameter.detach().normal_(std=0.3)
        path = tmp_path / type(theirs).__name__
        theirs.eval().save_pretrained(path)
        words.save(str(path / "tokenizer.json"))
        assert draw(path, *arguments, "--out", out) == 0
        data = page_data(out)
        return {layer["name"]: layer for layer in data["layers"]}, data["texts"]

    def compared(layer, want):
        weights = np.frombuffer(base64.b64decode(layer["weights"]), "<u2") / 65535
        np.testing.assert_allclose(weights.reshape(want[0].shape), want[0].detach(), rtol=0, atol=1e-5)

    sizes = dict(vocab_size=11, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20)
    config = transformers.BertConfig(**sizes, max_position_embeddings=16, attn_implementation="eager")
    for kind in ("BertModel", "BertForMaskedLM", "BertForSequenceClassification", "BertForTokenClassification"):
        theirs = getattr(transformers, kind)(config)
        layers, texts = drawn(theirs, "--text", "I see dich")
        assert texts == {"ids": ["I", "see", "dich"]}
        wanted = theirs(input_ids=torch.tensor([[7, 5, 3]]), output_attentions=True).attentions
        prefix = "" if kind == "BertModel" else "bert."
        assert list(layers) == [f"{prefix}blocks.{i}.attn" for i in range(2)]
        for layer, want in zip(layers.values(), wanted, strict=True):
            compared(layer, want)

    sizes = dict(vocab_size=11, d_model=12, d_kv=5, d_ff=20, num_layers=1, num_decoder_layers=2, num_heads=3)
    theirs = transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes, attn_implementation="eager"))
    layers, texts = drawn(theirs, "--text", "I see", "--target", "ich sehe dich")
    assert texts == {"source": ["I", "see"], "target": ["ich", "sehe", "dich"]}
    told = theirs(input_ids=torch.tensor([[7, 5]]), decoder_input_ids=torch.tensor([[1, 2, 3]]), output_attentions=True)
    assert list(layers) == ["encoder.0.attn", *(f"decoder.{i}.{branch}" for i in range(2) for branch in ("attn", "cross_attn"))]
    compared(layers["encoder.0.attn"], told.encoder_attentions[0])
    for i in range(2):
        compared(layers[f"decoder.{i}.attn"], told.decoder_attentions[i])
        compared(layers[f"decoder.{i}.cross_attn"], told.cross_attentions[i])
        crossed = layers[f"decoder.{i}.cross_attn"]
        assert (crossed["queries"], crossed["keys"]) == ("target", "source")


@pytest.mark.parametrize(("arguments", "complaint"), [
    (["gpt2-nan"], "did you mean 'gpt2-nano'"),
    (["gpt2-xl"], "random ones are for at most 1,000,000,000"),
    (["gpt2-nano", "--layer", "2"], "a layer from 0 to 1; got layer 2"),
    (["gpt2-nano", "--layer", "blocks.0.atn"], "did you mean 'blocks.0.attn'"),
    (["gpt2-nano", "--head", "4"], "a head from 0 to 3 in blocks.0.attn; got head=4"),
    (["gpt2-nano", "--out", "x.pdf"], "an ending from '.png', '.svg', '.html'"),
    (["gpt2-nano", "--text", ""], "a text of 1 to 1024 tokens as ids"),
    (["gpt2-nano", "--text", "x" * 129], "positions below 128"),
    (["gpt2-nano", "--ids", "1 x"], "ids as numbers"),
    (["gpt2-nano", "--ids", "256"], r"\[0, 255\]"),
    (["gpt2-nano", "--target", "x"], "a target only for a model"),
])
def test_wrong_usage_ends_with_2_and_draws_nothing(tmp_path, monkeypatch, capsys, arguments, complaint):
    monkeypatch.chdir(tmp_path)
    assert draw(*arguments) == 2
    assert re.search(complaint, capsys.readouterr().err) and not list(tmp_path.iterdir())


def test_directories_that_hold_no_model_are_named(tmp_path, variant):
    with pytest.raises(ValueError, match="the directory of a run, or of a model"):
        open_model(str(tmp_path))
    (tmp_path / "config.json").write_text('{"suite": "positions"}')
    with pytest.raises(ValueError, match=r"one of the models in .*: rotary-0\.safetensors"):
        open_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"JSON in .*config\.json"):
        open_model(str(tmp_path))
    save_weights(variant, Decoder(CONFIG).state_dict())
    with pytest.raises(ValueError, match="weights with their config in the header"):
        open_model(str(variant))
    variant.write_bytes(variant.read_bytes()[:-1])
    with pytest.raises(ValueError, match="cut short"):
        open_model(str(variant))


def test_bytes_that_cannot_be_seen_are_written_otherwise():
    assert as_bytes("a\n\t\r\0é")[1] == ["a", "↵", "⇥", "␍", "00", "c3", "a9"]
