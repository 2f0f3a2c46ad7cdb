"""The settings of generation: what they refuse, that JSON gives them back, and what a generation_config.json becomes."""

import dataclasses
import json
from typing import Any

import pytest

from byhand.configs.generation import GenerationConfig

NAN = float("nan")


@pytest.mark.parametrize(("change", "message"), [
    (dict(max_new_tokens=-1), r"max_new_tokens as an integer >= 0; got max_new_tokens=-1"),
    (dict(max_new_tokens=1.5), r"max_new_tokens as an integer >= 0"),
    (dict(min_new_tokens=65), r"min_new_tokens <= max_new_tokens; got min_new_tokens 65"),
    (dict(temperature=NAN), r"temperature >= 0 and finite; got temperature=nan"),
    (dict(temperature=-0.1), r"temperature >= 0 and finite; got temperature=-0.1"),
    (dict(temperature=None), r"temperature >= 0 and finite; got temperature=None"),
    (dict(top_k=0), r"top_k as an integer >= 1; got top_k=0"),
    (dict(top_p=0), r"top_p in \(0, 1\]; got top_p 0"),
    (dict(top_p=1.1), r"top_p in \(0, 1\]; got top_p 1.1"),
    (dict(top_p=NAN), r"top_p in \(0, 1\]; got top_p nan"),
    (dict(top_p=True), r"top_p in \(0, 1\]; got top_p True"),
    (dict(min_p=-0.1), r"min_p in \[0, 1\]; got min_p -0.1"),
    (dict(typical=0.0), r"typical in \(0, 1\]; got typical 0.0"),
    (dict(epsilon=1.0), r"epsilon in \(0, 1\); got epsilon 1.0"),
    (dict(eta=0), r"eta in \(0, 1\); got eta 0"),
    (dict(repetition_penalty=0.0), r"repetition_penalty > 0 and finite; got repetition_penalty=0.0"),
    (dict(frequency_penalty=NAN), r"frequency_penalty >= -1e\+30 and finite; got frequency_penalty=nan"),
    (dict(presence_penalty="1"), r"presence_penalty >= -1e\+30 and finite; got presence_penalty='1'"),
    (dict(no_repeat_ngram=-1), r"no_repeat_ngram as an integer >= 0"),
    (dict(banned=(1, 2)), r"banned as a tuple of ids; got banned 1 of type int"),
    (dict(banned=((1,), ())), r"at least one id in every banned word; got banned \(\(1,\), \(\)\)"),
    (dict(banned="ab"), r"banned as a tuple of words, each a tuple of ids; got banned 'ab'"),
    (dict(suppressed=(-1,)), r"suppressed as an integer >= 0; got suppressed=-1"),
    (dict(suppressed=3), r"suppressed as a tuple of ids; got suppressed 3"),
    (dict(forced_first=-1), r"forced_first as an integer >= 0"),
    (dict(forced_last=1.0), r"forced_last as an integer >= 0"),
    (dict(pad=-1), r"pad as an integer >= 0; got pad=-1"),
    (dict(eos=-1), r"eos as an integer >= 0; got eos=-1"),
    (dict(eos=(1, True)), r"eos as an integer >= 0; got eos=True"),
    (dict(eos=None), r"eos as a tuple of ids; got eos None"),
    (dict(stop=("a", "")), r"stop as a tuple of strings, none of them empty"),
    (dict(stop=3), r"stop as a tuple of strings, none of them empty; got stop 3"),
    (dict(beams=0), r"beams as an integer >= 1; got beams=0"),
    (dict(beams=3, groups=2), r"beams to be a multiple of groups; got beams 3 of type int, groups 2"),
    (dict(diversity_penalty=0.5), r"groups > 1 for a diversity_penalty"),
    (dict(diversity_penalty=-1, beams=2, groups=2), r"diversity_penalty >= 0 and finite; got diversity_penalty=-1"),
    (dict(length_penalty=NAN), r"length_penalty >= -1e\+30 and finite; got length_penalty=nan"),
    (dict(early_stopping="always"), r"early_stopping from False, True, 'never'; got early_stopping='always'"),
    (dict(early_stopping=1), r"early_stopping as a flag or 'never'; got early_stopping 1"),
    (dict(n_best=2), r"n_best <= beams; got n_best 2 of type int, beams 1"),
])
def test_bad_values_are_refused(change, message):
    with pytest.raises(ValueError, match=f"^GenerationConfig needs {message}"):
        GenerationConfig(**change)


def test_the_ends_of_every_range_are_taken():
    GenerationConfig(max_new_tokens=0, top_k=1, top_p=1, min_p=0, typical=1, epsilon=1e-9, eta=0.999, length_penalty=-2.0)
    GenerationConfig(max_new_tokens=5, min_new_tokens=5, min_p=1.0, forced_first=0, pad=0)
    GenerationConfig(beams=4, groups=4, diversity_penalty=0.5, n_best=4)


def test_json_gives_it_back():
    lists: dict[str, Any] = dict(eos=[1, 2], banned=[[1], [2, 3]], suppressed=[4], stop="\n", top_p=0.5, early_stopping="never")
    config = GenerationConfig(**lists)
    assert (config.eos, config.banned, config.suppressed, config.stop) == ((1, 2), ((1,), (2, 3)), (4,), ("\n",))
    assert GenerationConfig.from_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config
    assert GenerationConfig(**lists | dict(eos=0)).eos == (0,)
    with pytest.raises(ValueError, match=r"got 'top-p' .did you mean 'top_p'"):
        GenerationConfig.from_dict({"top-p": 0.5})


def test_files_as_they_are_published():
    llama = {"_from_model_config": True, "bos_token_id": 128000, "do_sample": True, "eos_token_id": [128001, 128009], "max_length": 4096,
             "temperature": 0.6, "top_p": 0.9, "transformers_version": "4.38.2"}
    want = GenerationConfig(temperature=0.6, top_p=0.9, top_k=50, eos=(128001, 128009))
    assert GenerationConfig.from_hugging_face(llama) == want
    bart = {"decoder_start_token_id": 2, "early_stopping": True, "eos_token_id": 2, "forced_bos_token_id": 0, "forced_eos_token_id": 2,
            "length_penalty": 2.0, "max_length": 142, "min_length": 56, "no_repeat_ngram_size": 3, "num_beams": 4, "pad_token_id": 1}
    want = GenerationConfig(
        max_new_tokens=141, min_new_tokens=55, top_k=50, no_repeat_ngram=3, forced_first=0, forced_last=2, eos=(2,), pad=1, beams=4,
        length_penalty=2.0, early_stopping=True)
    assert GenerationConfig.from_hugging_face(bart, prompt_length=1) == want
    with pytest.raises(ValueError, match="a prompt_length, which min_length counts"):
        GenerationConfig.from_hugging_face(bart)


def test_what_a_file_leaves_out_or_turns_off():
    assert GenerationConfig.from_hugging_face({}) == GenerationConfig(top_k=50)
    assert GenerationConfig.from_hugging_face({"do_sample": True}).temperature == 1.0
    assert GenerationConfig.from_hugging_face({"do_sample": False, "temperature": 0.7, "top_p": 0.9}).temperature == 0.0
    off = dict(do_sample=True, top_k=0, top_p=1.0, typical_p=1.0, epsilon_cutoff=0.0, eta_cutoff=0.0, min_p=None, guidance_scale=1.0,
               pad_token_id=-1)
    assert GenerationConfig.from_hugging_face(off) == GenerationConfig(temperature=1.0)
    assert GenerationConfig.from_hugging_face(dict(bad_words_ids=[[2], [2, 3]], eos_token_id=2)).banned == ((2, 3),)
    assert GenerationConfig.from_hugging_face(dict(forced_eos_token_id=[4])).forced_last == 4
    assert GenerationConfig.from_hugging_face(dict(max_length=30, max_new_tokens=5), prompt_length=3).max_new_tokens == 5


@pytest.mark.parametrize(("values", "asked", "want"), [
    (dict(min_length=15), None, (64, 12)),
    (dict(min_length=2), None, (64, 0)),
    (dict(min_length=15, min_new_tokens=1), None, (64, 1)),              # as transformers has it, the one that counts new tokens counts
    (dict(min_length=15, min_new_tokens=0), None, (64, 0)),
    (dict(max_length=9, min_length=15), None, (6, 6)),
    (dict(max_length=9, max_new_tokens=20), None, (20, 0)),
    (dict(max_new_tokens=1, min_new_tokens=3), 12, (12, 3)),
    (dict(max_new_tokens=20, min_new_tokens=3), 2, (2, 2)),
    (dict(max_length=2, min_length=1), 5, (5, 0)),                       # the prompt alone is longer
])
def test_lengths_that_the_file_and_the_caller_tell(values, asked, want):
    found = GenerationConfig.from_hugging_face(values, prompt_length=3, max_new_tokens=asked)
    assert (found.max_new_tokens, found.min_new_tokens) == want


def test_a_forced_first_token_stands_behind_one_token_alone():
    values = dict(forced_bos_token_id=4)
    assert [GenerationConfig.from_hugging_face(values, prompt_length=n).forced_first for n in (None, 1, 2)] == [4, 4, None]


@pytest.mark.parametrize("values", [
    dict(max_length=-1), dict(max_length=1.5), dict(min_length="3"), dict(min_new_tokens=-1), dict(max_new_tokens=True), dict(max_length=2),
])
def test_lengths_that_are_none(values):
    with pytest.raises(ValueError, match="as an integer >= 0"):
        GenerationConfig.from_hugging_face(values, prompt_length=3)


@pytest.mark.parametrize("values", [
    dict(guidance_scale=1.5), dict(sequence_bias=[[[1], 2.0]]), dict(begin_suppress_tokens=[1]), dict(renormalize_logits=True),
    dict(penalty_alpha=0.6), dict(encoder_repetition_penalty=1.2), dict(force_words_ids=[[1]]), dict(top_h=0.3),
])
def test_settings_without_a_counterpart_are_refused(values):
    (name,) = values
    with pytest.raises(ValueError, match=f"no {name}, which is not supported"):
        GenerationConfig.from_hugging_face(values)
    with pytest.raises(ValueError, match="a dict of values by name"):
        GenerationConfig.from_hugging_face([])  # type: ignore[arg-type]
