"""Contrastive search is the paper's equation, written down without a cache, a row at a time."""

import numpy as np
import pytest
import torch

from byhand.configs.generation import GenerationConfig
from byhand.configs.gpt2 import GPT2Config
from byhand.configs.llama import LlamaConfig
from byhand.configs.t5 import T5Config
from numpy_impl.decode.contrastive import contrastive
from numpy_impl.decode.generate import generate
from numpy_impl.models.gpt2 import GPT2
from numpy_impl.models.llama import Llama
from numpy_impl.models.t5 import T5
from torch_impl.decode.contrastive import contrastive as torch_contrastive
from torch_impl.models.gpt2 import GPT2 as TorchGPT2
from torch_impl.models.llama import Llama as TorchLlama
from torch_impl.models.t5 import T5 as TorchT5

V = 13
MODELS = {
    "gpt2": (GPT2, TorchGPT2, GPT2Config(V, 40, 8, 2, 2)),
    "llama": (Llama, TorchLlama, LlamaConfig(V, 40, 12, 2, 3, n_kv_heads=1, d_hidden=20)),
    "window": (Llama, TorchLlama, LlamaConfig(V, 40, 12, 2, 3, n_kv_heads=1, d_hidden=20, window=3)),
    "t5": (T5, TorchT5, T5Config(V, 12, 3, encoder_layers=1, decoder_layers=2, d_hidden=20, head_width=4)),
}


def models(name):
    """A random model of ours and the same in torch, in float64."""
    ours, theirs, config = MODELS[name]
    model, rng = ours(config, dtype=np.float64), np.random.default_rng(3)
    for key, array in model.state_dict().items():
        array[...] = 1 if "norm" in key else 0.6 * rng.standard_normal(array.shape)
    twin = theirs(config, dtype=torch.float64)
    twin.load_state_dict({key: torch.from_numpy(array) for key, array in model.state_dict().items()})
    return model, twin


def plain(model, text, k, alpha, tokens, source=None):
    """Su et al. 2022, equation 5: every candidate's whole text goes through the model."""

    def read(text):
        h = model.hidden(*([] if source is None else [source]), np.array([text]))[0]
        return model.logits(h)[0][0], h[0]

    text, start = list(text), len(text)
    for _ in range(tokens):
        logits, h = read(text)
        p = np.exp(logits[-1] - logits[-1].max())
        p /= p.sum()
        scores = {}
        for v in np.argsort(-p, kind="stable")[:k]:
            own = read([*text, int(v)])[1][-1]
            cosines = [own @ other / np.sqrt((own @ own) * (other @ other)) for other in h]
            scores[int(v)] = (1 - alpha) * p[v] - alpha * max(cosines)
        text.append(max(scores, key=scores.__getitem__))
    return text[start:]


@pytest.mark.parametrize("name", MODELS)
def test_it_is_the_papers_equation(name):
    """Rows of different lengths and paddings, on both sides, and unlike greedy text."""
    model, twin = models(name)
    encodes = name == "t5"
    ids = np.zeros((3, 1), np.int64) if encodes else np.array([[1, 2, 3, 4], [5, 6, 7, 7], [9, 7, 7, 8]])
    real = None if encodes else np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 1]], bool)
    source = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]]) if encodes else None
    caches = (lambda m, wrap: m.new_cache(wrap(source))) if encodes else lambda m, wrap: m.new_cache()
    unlike = 0
    for k, alpha in ((4, 0.6), (6, 1.0), (3, 0.0)):
        config = GenerationConfig(max_new_tokens=7)
        got = contrastive(model, ids, config=config, k=k, alpha=alpha, real=real, cache=caches(model, np.asarray))
        for b in range(3):
            text = ids[b] if real is None else ids[b][real[b]]
            want = plain(model, text.tolist(), k, alpha, 7, source=None if source is None else source[b : b + 1])
            assert got.sequences[b].tolist() == want, (k, alpha, b)
        twins = torch_contrastive(twin, torch.from_numpy(ids), config=config, k=k, alpha=alpha,
                                  real=None if real is None else torch.from_numpy(real), cache=caches(twin, torch.from_numpy))
        assert (twins.sequences.numpy() == got.sequences).all() and abs(float(twins.gap) - float(got.gap)) < 1e-9
        greedy = generate(model, ids, config=config, real=real, cache=caches(model, np.asarray)).sequences
        assert alpha or (greedy == got.sequences).all()
        unlike += (greedy != got.sequences).sum()
    assert unlike > 10
