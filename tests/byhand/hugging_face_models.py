"""Tiny models of every family that is read and written, ours and transformers', and what both compute: logits, and every gradient."""

import dataclasses
import importlib
import json

import numpy as np
import torch

from byhand.configs.bert import BertConfig
from byhand.configs.gpt2 import GPT2Config
from byhand.configs.llama import LlamaConfig
from byhand.configs.mixtral import MixtralConfig
from byhand.configs.rope import RopeConfig
from byhand.configs.t5 import T5Config
from byhand.hugging_face.families import family_of
from numpy_impl.layers.module import flatten

LLAMA = LlamaConfig(vocabulary=11, max_length=16, d_model=12, n_layers=2, n_heads=3, n_kv_heads=1, d_hidden=20)
YARN = RopeConfig(width=4, type="yarn", factor=4.0, original_length=16)
BERT = BertConfig(vocabulary=11, max_length=16, d_model=12, n_layers=2, n_heads=3, d_hidden=20, padding=2, classes=4, dropout=0.0)
DISTILBERT = dataclasses.replace(BERT, segments=0, pooler="relu")
MIXTRAL = MixtralConfig(vocabulary=11, max_length=16, d_model=12, n_layers=2, n_heads=3, n_kv_heads=1, d_hidden=20, n_experts=4, k=2)
T5_1_0 = T5Config(vocabulary=11, d_model=12, n_heads=3, encoder_layers=2, decoder_layers=3, d_hidden=20, head_width=5, buckets=8,
                  max_distance=6, start=3, dropout=0.0)
# what it is: our class, its config
MODELS = {
    "gpt2": ("GPT2", GPT2Config(vocabulary=11, max_length=16, d_model=12, n_layers=2, n_heads=3, d_hidden=20, dropout=0.0)),
    "llama": ("Llama", LLAMA),
    "llama, tied, biased, yarn": (
        "Llama", dataclasses.replace(LLAMA, tied=True, attention_bias=True, mlp_bias=True, rope=YARN, max_length=64)
    ),
    "mistral": ("Llama", dataclasses.replace(LLAMA, window=3)),
    "qwen2": ("Llama", dataclasses.replace(LLAMA, attention_bias="qkv", tied=True)),
    "qwen3": ("Llama", dataclasses.replace(LLAMA, qk_norm=True, head_width=6, rope=RopeConfig(width=6, base=1e6), window=5)),
    "mixtral": ("Mixtral", MIXTRAL),
    "qwen2_moe": ("Mixtral", dataclasses.replace(MIXTRAL, attention_bias="qkv", d_expert=10, d_shared=14, shared_gate=True,
                                                 renormalise=False, dense=(1,))),
    "qwen3_moe": ("Mixtral", dataclasses.replace(MIXTRAL, qk_norm=True, d_expert=10, head_width=8, rope=RopeConfig(width=8, base=1e6))),
    "bert": ("Bert", BERT),
    "bert, masked": ("BertMaskedLM", BERT),
    "bert, sequences": ("BertSequenceClassifier", BERT),
    "bert, tokens": ("BertTokenClassifier", dataclasses.replace(BERT, classes=3, padding=None, activation="gelu_tanh")),
    "distilbert": ("Bert", DISTILBERT),
    "distilbert, masked": ("BertMaskedLM", DISTILBERT),
    "distilbert, sequences": ("BertSequenceClassifier", DISTILBERT),
    "distilbert, tokens": ("BertTokenClassifier", dataclasses.replace(DISTILBERT, classes=3, padding=None, activation="relu")),
    "t5": ("T5", T5_1_0),
    "t5 v1.1": ("T5", dataclasses.replace(T5_1_0, activation="geglu_tanh", tied=False)),
}
IDS = np.random.default_rng(0).integers(3, 11, (2, 9))                              # none is padding, whose embedding does not learn
TARGET = np.random.default_rng(1).integers(3, 11, (2, 7))


def class_of(kind, side="numpy"):
    file = "bert" if kind.startswith("Bert") else kind.lower()
    return getattr(importlib.import_module(f"{side}_impl.models.{file}"), kind)


def ours_of(kind, config, dtype=np.float32):
    """A random model of ours."""
    model = class_of(kind)(config, dtype=dtype, rng=np.random.default_rng(0))
    for value in model.state_dict().values():
        value[...] = 0.3 * np.random.default_rng(value.size).standard_normal(value.shape)
    return model


def theirs_of(kind, config):
    """A random model of transformers with the sizes of a config of ours."""
    import transformers

    values = family_of("theirs_of", config).write_config(config, kind)
    cls = getattr(transformers, values["architectures"][0])
    made = cls.config_class(**values)
    if kind == "Mixtral":
        made._experts_implementation = "eager"
    model = cls(made).eval()
    if kind == "T5" and not config.tied:  # version 5 of transformers ties a new head whatever the config says
        model.lm_head.weight = torch.nn.Parameter(torch.zeros_like(model.shared.weight))
    return shaken(model)


def shaken(theirs):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.normal_(std=0.3)
    return theirs


def read_by_transformers(path):
    """(the model, what was told of its names)."""
    import transformers

    values = json.loads((path / "config.json").read_text())
    cls = getattr(transformers, values["architectures"][0])
    options = dict(experts_implementation="eager") if "experts" in str(values) else {}
    return cls.from_pretrained(path, output_loading_info=True, local_files_only=True, dtype=torch.float32, **options)


def logits(theirs):
    """Of an encoder without a head, its states."""
    with torch.no_grad():
        return theirs(**_inputs(theirs))[0].numpy()


def logits_and_gradients(theirs, kind, config):
    """Of transformers' model: logits, and by our names the gradients of their product with `cotangent`."""
    theirs.zero_grad()
    found = theirs(**_inputs(theirs))[0]
    (found * torch.tensor(cotangent(found.shape))).sum().backward()
    grads = {name: parameter.grad.numpy() for name, parameter in theirs.named_parameters() if parameter.grad is not None}
    own = family_of("theirs", config).read_state(grads, config, kind)
    return found.detach().numpy(), {name: np.asarray(grad) for name, grad in own.items()}


def _inputs(theirs):
    target = dict(decoder_input_ids=torch.tensor(TARGET)) if theirs.config.is_encoder_decoder else {}
    return dict(input_ids=torch.tensor(IDS), **target)


def our_logits(model):
    return model(IDS, TARGET) if type(model).__name__ == "T5" else model(IDS)


def our_logits_and_gradients(model):
    """The same of a model of ours, on either side."""
    inputs = (IDS, TARGET) if type(model).__name__ == "T5" else (IDS,)
    if isinstance(model, torch.nn.Module):
        found = model(*map(torch.tensor, inputs))
        (found * torch.tensor(cotangent(found.shape))).sum().backward()
        return found.detach().numpy(), {name: parameter.grad.numpy() for name, parameter in model.named_parameters()}
    found, backward = model.forward(*inputs)
    return found, flatten(backward(cotangent(found.shape)))


def cotangent(shape):
    return np.random.default_rng(2).standard_normal(shape).astype(np.float32)


def close(got, want, what=""):
    """Within 1e-5 of the scale."""
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-5 * max(1.0, float(np.abs(want).max(initial=0.0))), err_msg=what)
