"""What generation is fed: a model of a few states and small real ones, prompts of several lengths, every way to end, and noise."""

import types
from typing import Any

import numpy as np

from byhand.configs.generation import GenerationConfig
from byhand.configs.gpt2 import GPT2Config
from byhand.configs.llama import LlamaConfig
from byhand.configs.t5 import T5Config
from byhand.noise import Noise
from parity.cases import array, case, flag, ids, integer, left_out, mask, noise, one_of, size
from parity.cases.decode._automaton import Automaton
from parity.cases.decode.beam_search import _told
from parity.sides import Side

STATES = 97
REASONS = ("length", "eos", "context", "stop")
_TINY: dict[str, Any] = dict(max_length=9, d_model=8, n_layers=2, n_heads=2)
CONFIGS = {
    "models.GPT2": lambda vocabulary: GPT2Config(vocabulary, **_TINY, d_hidden=8, dropout=0.0),
    "models.Llama": lambda vocabulary: LlamaConfig(vocabulary, **_TINY, n_kv_heads=1, d_hidden=8),
    "models.T5": lambda vocabulary: T5Config(vocabulary, 8, 2, 1, 2, d_hidden=8, head_width=4, buckets=4, max_distance=6, dropout=0.0),
}


class Writer(Automaton):
    """An Automaton with a context, which writes down what its cache is asked to keep."""

    def __init__(self, side: Any, table: Any, context: int | None):
        super().__init__(side, table)
        if context is not None:
            self.config: Any = types.SimpleNamespace(vocabulary=table.shape[1], max_length=context)


def play(side, table, model="automaton", context=None, before=None, real=None, poison=None, stop_at=None, raw=None, ids=None, noise=None,
         silent=False, **options):
    """What was written, what was told after each step, the state of the rows when it ended, and what was read in each call."""
    if poison is not None:
        table = np.where(np.arange(table.size).reshape(table.shape) == 3, poison, table)
    made: Any
    cache: Any = None
    if model == "automaton":
        made = Writer(side, side.array(table), context)
        cache = made.new_cache()
        if before is not None:
            made.extend(side.array(before), cache)
            cache.lengths = side.array(np.full(len(before), before.shape[1]))
    elif model in CONFIGS:
        side = Side(side.name, "float64", side.device)               # in float32 two candidates may lie closer than the sides do
        made = side.get(model)(CONFIGS[model](table.shape[1]), dtype=side.dtype)
        side.load(made, {name: np.random.default_rng(len(name)).standard_normal(tuple(value.shape)) * 0.4
                         for name, value in made.state_dict().items()})
        source = () if model != "models.T5" else (side.array(np.arange(len(ids) * 4).reshape(len(ids), 4) % table.shape[1]),)
        cache = made.new_cache(*source)
        real = None if source else real
    else:
        made = side.get("models.T5")(CONFIGS["models.T5"](3)) if model == "no cache" else object()
    told: list[Any] = []

    def on_tokens(tokens, ended):
        told.append((side.numpy(tokens), side.numpy(ended)))
        if stop_at is None or len(told) <= stop_at[0]:
            return None
        if isinstance(stop_at[1], str):
            wide = side.array(np.ones((len(tokens), 1), bool))
            return {"word": "stop", "number": 1, "ragged": [[True], [True, False]], "wide": wide}[stop_at[1]]
        return True if stop_at[1] is None else side.array(np.arange(len(tokens)) == stop_at[1])

    found = side.get("decode.generate")(
        made, None if ids is None else side.array(ids), config=GenerationConfig(**options) if raw is None else raw,
        real=None if real is None else side.array(_told(real)), cache=cache, noise=noise, on_tokens=None if silent else on_tokens,
    )
    lengths = np.zeros(0) if isinstance(made, Writer) else side.numpy(cache.lengths)
    return found._asdict() | {
        "reasons": np.array([REASONS.index(reason) for reason in found.reasons], np.int64),
        "told": {str(n): {"tokens": tokens, "ended": ended} for n, (tokens, ended) in enumerate(told)},
        "states": cache.states if isinstance(made, Writer) else lengths,
        "calls": np.array(cache.calls, np.int64) if isinstance(made, Writer) else lengths,
    }


def alone(side, table, ids, model="automaton", context=None, real=None, noise=None, before=None, stop_at=None, silent=False, **options):
    """A row writes what it writes without those behind it, and without on_tokens; each token is the best of the process of its state."""
    if model != "automaton" or before is not None or stop_at is not None:
        return
    generate, config = side.get("decode.generate"), GenerationConfig(**options)
    real = None if real is None else side.array(_told(side.numpy(real)))
    made = Writer(side, table, context)
    whole = generate(made, ids, config=config, real=real, noise=noise)
    for b in range(1, len(ids)):
        part = generate(made, ids[:b], config=config, real=None if real is None else real[:b], noise=noise)
        yield f"lengths of the first {b}", part.lengths, whole.lengths[:b]
        yield f"the first {b}", part.sequences, whole.sequences[:b, : part.sequences.shape[1]]


BAD: dict[str, Any] = dict(table=array(3, 4, hostile=False), ids=np.array([[1, 2], [0, 3]]))


@case(
    "decode.generate", play=play, also=[alone],
    refuses=[
        BAD | dict(ids=None),
        BAD | dict(ids=np.zeros((2, 0), np.int64)),
        BAD | dict(ids=np.zeros(2, np.int64)),
        BAD | dict(ids=np.zeros((2, 2))),
        BAD | dict(real=np.ones((2, 1), bool)),
        BAD | dict(real=np.ones((2, 2))),
        BAD | dict(ids=np.array([[1], [2]]), real=np.array([[True], [False]])),
        BAD | dict(beams=2),
        BAD | dict(temperature=0.5),
        BAD | dict(noise=7),
        BAD | dict(stop="end", silent=True),
        BAD | dict(raw={"beams": 1}),
        *(BAD | dict(stop_at=(0, told)) for told in ("word", "number", "ragged", "wide")),
        BAD | dict(poison=np.nan),
        BAD | dict(poison=np.inf),
        BAD | dict(context=1),
        BAD | dict(context=3, before=np.array([[1, 2], [0, 3]])),
        BAD | dict(model="no cache"),
        BAD | dict(model="no model"),
        BAD | dict(model="models.GPT2", ids=np.zeros((2, 10), np.int64)),
    ],
    equivalent={"len(still) < len(rows) -> len(still) <= len(rows)": "all rows in their order are what they are"},
)
def generate(draw):
    model = draw(one_of("automaton", "automaton", "automaton", *CONFIGS))
    vocabulary = draw(size(1, 7))
    b, t, most = draw(one_of(0, 1, 2, 3, 3)), draw(integer(1, 4)), draw(integer(3 if draw.ordinary else 0, 8))
    if model != "automaton":
        b = max(b, 1)
    ends = tuple(sorted({draw(integer(0, vocabulary - 1)) for _ in range(draw(one_of(0, 0, 1, 1, 2)))}))
    rules = dict(min_new_tokens=draw(left_out(integer(0, most))), suppressed=draw(left_out((0,))), no_repeat_ngram=draw(left_out(3)))
    draws = draw(flag())
    held = draw(one_of(None, None, ids(b, 2, below=vocabulary))) if model == "automaton" else None
    return dict(
        table=array(STATES, vocabulary, scale=2.0, hostile=False), model=model, ids=ids(b, t, below=vocabulary),
        real=draw(one_of(None, mask(b, t), mask(b, t, p=0.4))) if t > 1 else None, before=held,
        context=draw(one_of(None, *[integer(t, t + 3) if held is None else integer(t + 2, t + 5)] * 3)) if model == "automaton" else None,
        noise=draw(noise()) if draws else draw(one_of(None, Noise(seed=1))), temperature=draw(one_of(0.7, 1.0, 2.0)) if draws else 0.0,
        max_new_tokens=most, eos=ends, pad=draw(one_of(None, None, integer(0, 3))), repetition_penalty=draw(one_of(0.7, 1.0, 1.6, 1.6)),
        frequency_penalty=draw(left_out(one_of(0.5))), top_k=draw(left_out(integer(1, 3))),
        stop_at=draw(one_of(None, (2, None), (0, 0), (1, 0), (1, 1))), silent=draw(one_of(False, False, True)),
        **(rules if vocabulary > 4 else {}),
    )
