"""`byhand generate` on directories that transformers has saved: the same text, streamed, drawn or searched for, on both sides."""

import io
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from byhand import cli

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

TEXT = [Path(__file__).read_text(encoding="utf-8"), "déjà vu 😀 日本語 " * 3]
END, START = 0, 3


def tokenizer(*, ends=False):
    from tokenizers import decoders, models, pre_tokenizers, processors, trainers

    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    made.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
                                                       special_tokens=["<end>"], show_progress=False))
    if ends:
        made.post_processor = processors.TemplateProcessing(single="$A <end>", special_tokens=[("<end>", END)])
    return made


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """Directories of small models with random weights, by name."""
    root, v = tmp_path_factory.mktemp("hub"), tokenizer().get_vocab_size()
    llama = dict(vocab_size=v, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    made = {
        "gpt2": transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=v, n_positions=40, n_embd=32, n_layer=2, n_head=4)),
        "llama": transformers.LlamaForCausalLM(transformers.LlamaConfig(max_position_embeddings=128, **llama)),
        "mistral": transformers.MistralForCausalLM(transformers.MistralConfig(sliding_window=6, max_position_embeddings=128, **llama)),
        "t5": transformers.T5ForConditionalGeneration(transformers.T5Config(
            vocab_size=v, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=START, pad_token_id=START,
            eos_token_id=END)),
        "bert": transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=v, hidden_size=32, num_hidden_layers=1,
                                                                     num_attention_heads=2, intermediate_size=32)),
    }
    for number, (name, model) in enumerate(made.items()):
        torch.manual_seed(number)
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.25)
        model.generation_config = transformers.GenerationConfig(
            eos_token_id=END, pad_token_id=END, **({"decoder_start_token_id": START} if name == "t5" else {}))
        model.save_pretrained(root / name)
        tokenizer(ends=name == "t5").save(str(root / name / "tokenizer.json"))
    return root


def run(*arguments):
    return cli.main(["generate", *(str(argument) for argument in arguments)])


def said(capsys, *arguments):
    """(stdout, stderr) of a command that must work."""
    capsys.readouterr()
    assert run(*arguments) == cli.OK, capsys.readouterr().err
    return capsys.readouterr()


def told(capsys, *arguments):
    return json.loads(said(capsys, *arguments, "--json").out)


def refused(capsys, *arguments):
    capsys.readouterr()
    assert run(*arguments) == cli.WRONG_USAGE
    printed = capsys.readouterr()
    assert printed.out == "" and "Traceback" not in printed.err
    return " ".join(printed.err.split())


def theirs(path, prompt, **options):
    """What transformers writes behind the prompt, in float64."""
    auto = transformers.AutoModelForSeq2SeqLM if path.name == "t5" else transformers.AutoModelForCausalLM
    model = auto.from_pretrained(path, dtype=torch.float64)
    ids = torch.tensor([tokenizer(ends=path.name == "t5").encode(prompt).ids])
    found = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, **options)
    return [text[1 if path.name == "t5" else ids.shape[1] :].tolist() for text in found]


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "t5"])
def test_it_writes_what_transformers_writes(name, hub, capsys):
    want = theirs(hub / name, "the same text", max_new_tokens=20)[0]
    beams = theirs(hub / name, "the same text", max_new_tokens=9, num_beams=3, num_return_sequences=2, length_penalty=0.5)
    for backend in ("numpy", "torch"):
        options = ["--backend", backend, "--dtype", "float64"]
        found = told(capsys, hub / name, "the same text", "--count", 20, *options)
        assert found["texts"][0]["tokens"] == want and found["gap"] > 0
        printed = said(capsys, hub / name, "the same text", "--max-tokens", 20, *options)
        assert printed.out == found["texts"][0]["text"] + "\n"
        assert f"{len(want)} tokens behind" in printed.err and "tokens/s" in printed.err and "lead" not in printed.err
        found = told(capsys, hub / name, "the same text", "--count", 9, "--beams", 3, "--n-best", 2, "--length-penalty", 0.5, *options)
        assert [text["tokens"] for text in found["texts"]] == [
            [*text[: text.index(END)], END] if END in text else text for text in beams]
    assert "the smallest lead" in said(capsys, hub / name, "the same text", "--count", 2).err


def test_what_is_drawn_is_drawn_alike_and_the_model_says_how(hub, capsys):
    path = hub / "llama"
    rules = ["--temperature", 0.9, "--top-k", 40, "--top-p", 0.95, "--min-p", 0.01, "--typical", 0.97, "--repetition-penalty", 1.2,
             "--frequency-penalty", 0.1, "--presence-penalty", 0.1, "--no-repeat-ngram", 3, "--ban", "the", "--min-tokens", 5,
             "--count", 30, "--dtype", "float64"]
    one, other = (told(capsys, path, "the", *rules, "--backend", backend)["texts"] for backend in ("numpy", "torch"))
    assert one == other and "the" not in one[0]["text"]
    assert one != told(capsys, path, "the", *rules, "--seed", 5)["texts"]
    for kind in ("contiguous", "paged"):
        assert one == told(capsys, path, "the", *rules, "--cache", kind)["texts"]
    drawn = told(capsys, path, "the", "--temperature", 0.7, "--top-k", 5, "--count", 12)
    file = path / "generation_config.json"
    before = file.read_text()
    try:
        file.write_text(json.dumps(json.loads(before) | {"do_sample": True, "temperature": 0.7, "top_k": 5, "max_length": 13}))
        assert told(capsys, path, "the")["texts"] == drawn["texts"]                   # of 13 tokens one is the prompt
        assert told(capsys, path, "the", "--temperature", 0, "--count", 12)["texts"] != drawn["texts"]
        assert told(capsys, path, "the", "--beams", 2, "--count", 3)["texts"][0]["score"] < 0
    finally:
        file.write_text(before)


def test_it_stops_before_a_text_and_where_the_context_ends(hub, capsys):
    whole = told(capsys, hub / "gpt2", "the same", "--count", 30)["texts"][0]
    text = whole["text"]
    stop = text[len(text) // 2 : len(text) // 2 + 3]
    found = told(capsys, hub / "gpt2", "the same", "--count", 30, "--stop", "never this", stop)["texts"][0]
    assert found["text"] == text[: text.index(stop)] and found["reason"] == "stop" and len(found["tokens"]) < len(whole["tokens"])
    found = told(capsys, hub / "gpt2", "the same", "--count", 500, "--ban", "<end>", "--min-tokens", 500)
    assert found["texts"][0]["reason"] == "context" and len(found["texts"][0]["tokens"]) == 41 - len(found["prompt_tokens"])
    found = told(capsys, hub / "gpt2", "the same", "--count", 500, "--beams", 2, "--min-tokens", 30)
    assert len(found["texts"][0]["tokens"]) <= 41 - len(found["prompt_tokens"])
    found = told(capsys, hub / "gpt2", "the same", "--count", 500, "--beams", 2, "--ban", "<end>")
    assert found["texts"][0]["reason"] == "context"


def test_without_a_generation_config_the_config_speaks(hub, tmp_path, capsys):
    path = shutil.copytree(hub / "gpt2", tmp_path / "old")
    (path / "generation_config.json").unlink()
    values = json.loads((path / "config.json").read_text())
    plain = told(capsys, path, "the same", "--count", 12, "--dtype", "float64")["texts"][0]["tokens"]
    (path / "config.json").write_text(json.dumps(values | dict(max_length=20, repetition_penalty=1.8, num_beams=2)))
    found = told(capsys, path, "the same", "--count", 12, "--dtype", "float64")["texts"][0]["tokens"]
    assert found == theirs(path, "the same", max_new_tokens=12)[0][: len(found)] != plain
    assert len(told(capsys, path, "the same", "--ban", "<end>")["texts"][0]["tokens"]) > 20    # which version 4 wrote for no length at all


def test_an_answer_begins_behind_the_token_that_the_directory_says(hub, capsys):
    file = hub / "t5" / "generation_config.json"
    before = file.read_text()
    try:
        file.write_text(json.dumps(json.loads(before) | {"decoder_start_token_id": 7}))
        want = theirs(hub / "t5", "the same", max_new_tokens=9)[0]
        found = told(capsys, hub / "t5", "the same", "--count", 9, "--dtype", "float64")["texts"][0]["tokens"]
        assert found == want != theirs(hub / "t5", "the same", max_new_tokens=9, decoder_start_token_id=START)[0]
        file.write_text(json.dumps(json.loads(before) | {"decoder_start_token_id": 9999}))
        assert "decoder_start_token_id as an integer in [0, " in refused(capsys, hub / "t5", "the same")
    finally:
        file.write_text(before)


def test_the_prompt_may_come_on_the_standard_input(hub, capsys, monkeypatch):
    want = said(capsys, hub / "llama", "déjà vu", "--count", 8).out
    monkeypatch.setattr(sys, "stdin", io.StringIO("déjà vu\n"))
    assert said(capsys, hub / "llama", "-", "--count", 8).out == want


def test_options_that_change_nothing_are_told(hub, capsys):
    idle = said(capsys, hub / "llama", "the", "--count", 2, "--top-p", 0.5, "--length-penalty", 2).err
    assert "--top-p changes nothing: it is for what draws" in idle and "--length-penalty changes nothing: it is for what searches" in idle
    assert "changes nothing" not in said(capsys, hub / "llama", "the", "--count", 2, "--top-p", 0.5, "--temperature", 1).err
    assert "changes nothing" not in said(capsys, hub / "llama", "the", "--count", 2, "--beams", 2, "--length-penalty", 2).err


def test_a_prompt_is_utf_8_whatever_the_locale(hub, capsys):
    want = said(capsys, hub / "llama", "déjà vu", "--count", 8).out
    assert said(capsys, hub / "llama", "déjà vu".encode().decode("ascii", "surrogateescape"), "--count", 8).out == want


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "cp1252"])
def test_json_is_json_on_every_terminal(encoding, hub, monkeypatch, capsys):
    want = told(capsys, hub / "llama", "日本 déjà", "--count", 8)
    terminal = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", terminal)
    assert run(hub / "llama", "日本 déjà", "--count", 8, "--json") == cli.OK
    found = json.loads(terminal.buffer.getvalue().decode(encoding))
    assert (found["texts"], found["prompt"]) == (want["texts"], "日本 déjà")
    assert run(hub / "llama", "日本 déjà", "--count", 8) == run(hub / "llama", "日本 déjà", "--count", 8, "--compare") == cli.OK


def test_text_is_printed_as_it_comes(hub, monkeypatch, capsys):
    pieces: list[str] = []
    monkeypatch.setattr(sys.stdout, "write", pieces.append)
    assert run(hub / "llama", "the same", "--count", 30, "--min-tokens", 30) == cli.OK
    assert len(pieces) > 10 and pieces[-1] == "\n"
    monkeypatch.undo()
    assert "".join(pieces) == said(capsys, hub / "llama", "the same", "--count", 30, "--min-tokens", 30).out


def test_presets_of_every_kind_write(capsys):
    for preset in ("gpt2-nano", "llama-nano", "mixtral-nano", "deepseek-nano", "t5-nano", "transformer-nano"):
        one, other = (told(capsys, preset, "ab", "--count", 12, "--temperature", 1, "--dtype", "float64", "--backend", backend)["texts"]
                      for backend in ("numpy", "torch"))
        assert one == other and len(one[0]["tokens"]) == 12 and max(one[0]["tokens"]) < 259


def test_what_is_told_goes_before_what_the_directory_says(hub, capsys):
    file = hub / "llama" / "generation_config.json"
    before = file.read_text()
    try:
        file.write_text(json.dumps(json.loads(before) | dict(max_new_tokens=90, min_length=40, num_beams=4, num_return_sequences=4)))
        assert len(told(capsys, hub / "llama", "the", "--count", 3)["texts"]) == 4
        assert [len(text["tokens"]) for text in told(capsys, hub / "llama", "the", "--count", 3, "--beams", 2)["texts"]] == [3, 3]
        assert len(told(capsys, hub / "llama", "the", "--count", 3, "--n-best", 2)["texts"]) == 2
        assert len(told(capsys, hub / "llama", "the", "--beams", 1, "--min-tokens", 80)["texts"][0]["tokens"]) >= 80
    finally:
        file.write_text(before)


@pytest.mark.parametrize(("words", "complaint"), [
    (["--temperature", "nan"], "temperature >= 0 and finite"),
    (["--temperature", "-1"], "temperature >= 0 and finite"),
    (["--top-p", "0"], "top_p in (0, 1]"),
    (["--top-p", "1.5"], "top_p in (0, 1]"),
    (["--top-k", "0"], "top_k as an integer >= 1"),
    (["--beams", "1000"], "at most as many beams as there are tokens"),
    (["--beams", "2", "--n-best", "3"], "n_best <= beams"),
    (["--beams", "2", "--temperature", "1"], "temperature 0 with beams"),
    (["--beams", "2", "--stop", "x"], "one beam for texts to stop at"),
    (["--cache", "heap"], "cache"),
    (["--cache", "rolling"], "a model with a window for --cache rolling"),
    (["--seed", str(2**64)], "seed < 2^64"),
    (["--count", "0"], "count as an integer >= 1"),
    (["--seed", "-1"], "seed as an integer >= 0"),
    (["--ban", ""], "texts to ban that are not empty"),
    (["--device", "cuda"], "--backend torch for another device"),
    (["--compare", "--json"], "--compare or --json, not both"),
    (["--tempreature", "1"], "empreature"),
    (["--verbose"], "--verbose"),
])
def test_options_that_will_not_do(words, complaint, hub, capsys):
    assert complaint in refused(capsys, hub / "llama", "the", *words)


def test_models_and_prompts_that_will_not_do(hub, tmp_path, capsys, monkeypatch):
    read = []
    monkeypatch.setattr("byhand.commands.generate_models.build", lambda *_, **__: read.append(1))
    assert "an encoder alone; got model 'BertMaskedLM'" in refused(capsys, hub / "bert", "the")
    assert "a prompt of at most 40 tokens, the model's context" in refused(capsys, hub / "gpt2", "x y " * 40)
    assert "a prompt of at least one byte" in refused(capsys, hub / "gpt2", "")
    assert "a prompt in UTF-8" in refused(capsys, hub / "gpt2", "\udcff")
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert "a prompt of at least one byte" in refused(capsys, hub / "gpt2", "-")
    monkeypatch.setattr(sys, "stdin", None)                      # as it is where a shell has closed it
    assert "a standard input to read the prompt from" in refused(capsys, hub / "gpt2", "-")
    assert "a model with a window for --cache rolling" in refused(capsys, hub / "t5", "the", "--cache", "rolling")
    (hub / "llama" / "tokenizer.json").rename(tmp_path / "kept")
    try:
        assert "a tokenizer.json in" in refused(capsys, hub / "llama", "the")
        (hub / "llama" / "tokenizer.json").write_text("{")
        assert "a whole tokenizer.json" in refused(capsys, hub / "llama", "the")
    finally:
        (tmp_path / "kept").replace(hub / "llama" / "tokenizer.json")
    for change, complaint in (
        ({"max_length": 2}, "for a prompt of"), ({"guidance_scale": 2.0}, "guidance_scale"), ({"top_p": 3}, "top_p in (0, 1]"),
        ({"suppress_tokens": [9999]}, "suppressed below the vocabulary"), ({"forced_eos_token_id": 9999}, "forced_last below"),
        ({"num_beams": 2, "do_sample": True}, "temperature 0 with beams"),
        ({"do_sample": True, "temperature": float("nan")}, "temperature >= 0 and finite"),
    ):
        file = hub / "gpt2" / "generation_config.json"
        before = file.read_text()
        try:
            file.write_text(json.dumps(json.loads(before) | change))
            assert complaint in refused(capsys, hub / "gpt2", "the same text")
        finally:
            file.write_text(before)
    assert not read


def start(*arguments, **options):
    return subprocess.Popen([sys.executable, "-m", "byhand", "generate", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            cwd=Path(__file__).parents[2], **options)


def test_interrupted_it_ends_cleanly():
    running = start("gpt2-5m", "def ", "--count", "400", "--temperature", "1")
    begun = running.stdout.read(10)                              # the first letters are there while the rest is being written
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=120)
    assert running.returncode == cli.INTERRUPTED and out.endswith(b"\n") and len(begun) == 10
    assert b"interrupted. " in err and b"tokens had come in" in err and b"Traceback" not in err


def test_whoever_reads_may_leave():
    running = start("gpt2-5m", "def ", "--count", "400", "--temperature", "1")
    running.stdout.read(5)
    running.stdout.close()
    began = time.monotonic()
    assert running.wait(timeout=120) == cli.FAILED and b"Traceback" not in running.stderr.read() and time.monotonic() - began < 60
    running.stderr.close()


def test_without_an_output_nothing_is_begun(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", None)
    assert run("gpt2-nano", "def ") == cli.WRONG_USAGE and "a standard output to write to" in capsys.readouterr().err
