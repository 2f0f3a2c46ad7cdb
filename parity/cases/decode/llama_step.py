"""What one new token through a Llama is fed: every option of the model, adapters and experts in its layers, rows alike and not."""

from typing import Any

import numpy as np

from byhand.configs.llama import LlamaConfig
from byhand.configs.lora import LoRAConfig
from byhand.configs.mixtral import MixtralConfig
from byhand.configs.rope import RopeConfig
from numpy_impl.models.llama import Llama
from numpy_impl.models.mixtral import Mixtral
from parity.cases import case, flag, ids, integer, left_out, mask, maybe, one_of, size
from parity.cases.decode._stores import to


def make(side: Any, config: Any, adapted: bool) -> Any:
    """The model, its norms and biases no longer where they start."""
    kind = Mixtral if isinstance(config, MixtralConfig) else Llama
    model = side.get(f"models.{kind.__name__}")(config, dtype=side.dtype)
    state = kind(config, dtype=np.float64, rng=np.random.default_rng(3)).state_dict()
    rng = np.random.default_rng(4)
    state = {name: value + (0.3 if value.ndim == 1 else 0.2) * rng.standard_normal(value.shape) for name, value in state.items()}
    side.load(model, {name: value.astype(side.numpy(model.state_dict()[name]).dtype) for name, value in state.items()})
    if adapted:
        side.get("finetune.apply_lora")(model, LoRAConfig(r=2, targets=("k_proj", "o_proj")))
        for name, value in model.state_dict().items():
            if "lora_" in name:
                value[...] = side.array(0.2 * rng.standard_normal(value.shape))
    return model


def both(side: Any, *, config: Any, ids: Any, prompt: int, real: Any, kind: str, adapted: bool = False) -> tuple[list[Any], list[Any]]:
    """What the head reads of each new token by itself, once by `llama_step`, and once by the layers."""
    model, step = make(side, config, adapted), side.get("decode.llama_step")
    caches = [model.new_cache(kind) for _ in range(2)]
    told: tuple[list[Any], list[Any]] = ([], [])
    here = dict(device=side.device) if side.name == "torch" else {}
    ids, real = to(side, ids), None if real is None else to(side, real)
    for flat, cache in enumerate(caches):
        if prompt:
            places = cache.place((ids.shape[0], prompt), None if real is None else real[:, :prompt], **here)
            model.trunk(model.tokens(ids[:, :prompt]), real=places.real, run="inference", caches=cache.layers(places))
            cache.advance(places)
        for t in range(prompt, ids.shape[1]):
            places = cache.place((ids.shape[0], 1), None if real is None else real[:, t : t + 1], **here)
            x, layers = model.tokens(ids[:, t : t + 1]), cache.layers(places)
            h = step(model, x, layers) if flat else model.trunk(x, real=places.real, run="inference", caches=layers)[0]
            cache.advance(places)
            told[flat].append(side.numpy(h if places.real is None else h * places.real[..., None]))
    return told


def play(side: Any, **inputs: Any) -> dict[str, Any]:
    return {str(t): h for t, h in enumerate(both(side, **inputs)[1])}


def plain(side: Any, **inputs: Any) -> Any:
    """It is the trunk, in another form."""
    for t, (want, got) in enumerate(zip(*both(side, **inputs), strict=True)):
        yield f"token {t}", got, want


@case(
    "decode.llama_step", play=play, also=[plain],
    equivalent={"np.minimum(-gate, 80) -> np.minimum(-gate, 81)": "at either the gate is closed"},
)
def llama_step(draw):
    kv_heads = draw(integer(1, 2))
    heads, e = kv_heads * draw(integer(1, 2)), draw(one_of(4, 6))
    experts = draw(flag()) and draw(flag())
    options: dict[str, Any] = dict(
        vocabulary=7, max_length=16, d_model=draw(integer(4, 8)), n_layers=draw(integer(1, 2)), n_heads=heads, n_kv_heads=kv_heads,
        d_hidden=draw(size(2, 5)), head_width=e, window=draw(maybe(integer(1, 3))), attention_bias=draw(one_of(False, True, "qkv")),
        qk_norm=draw(flag()), norm_eps=draw(one_of(1e-5, 1e-2)), tied=True, rope=draw(one_of(None, RopeConfig(width=e - 2, head_width=e))),
    )
    if experts:
        config: Any = MixtralConfig(**options, n_experts=3, k=3)
    else:
        config = LlamaConfig(**options, mlp_bias=draw(flag()), activation=draw(one_of("swiglu", "swiglu", "geglu", "reglu")))
    b, prompt, new = draw(one_of(2, 1, 3, 0)), draw(one_of(3, 0, 1)), draw(integer(1, 4))
    return dict(
        config=config, ids=ids(b, prompt + new, below=7), prompt=prompt, real=draw(maybe(mask(b, prompt + new))),
        kind=draw(one_of("contiguous", "auto", "paged")), adapted=draw(left_out(flag())),
    )
