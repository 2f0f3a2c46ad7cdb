"""What the decoder is fed: tiny sizes, every architecture, every way to run, dropout."""

import dataclasses

from byhand.configs.decoder import DecoderConfig
from byhand.configs.gpt2 import GPT2Config
from numpy_impl.layers.module import flatten
from parity.cases import array, case, ids, integer, left_out, maybe, noise, one_of, size
from parity.cases.layers.decoder_attention import attention_options
from parity.cases.models.gpt2 import extends, loss


def is_gpt2_with_its_choices(side, module, ids, noise=None, run="keep"):
    """With learned positions, norms before, full attention and biases it is GPT-2: the same names, logits and gradients."""
    own = module.config
    sizes = {name: getattr(own, name) for name in ("vocabulary", "max_length", "d_model", "n_layers", "n_heads", "d_hidden", "dropout")}
    gpt2 = side.get("models.GPT2")(GPT2Config(**sizes, activation="gelu"), dtype=side.dtype)
    state = {name: side.array(side.numpy(value)) for name, value in gpt2.state_dict().items()}
    for name, value in module.state_dict().items():
        if name in state and value.shape == state[name].shape:
            state[name] = value
    gpt2.load_state_dict(state)
    decoder = side.get("models.Decoder")(DecoderConfig(**sizes, bias=True), dtype=side.dtype)
    decoder.load_state_dict(state)
    if side.name == "numpy":
        logits, backward = decoder.forward(ids, noise=noise, run=run)
        want, want_backward = gpt2.forward(ids, noise=noise, run=run)
        yield "logits", logits, want
        wanted = flatten(want_backward(want))
        for name, grad in flatten(backward(want)).items():
            yield f"grads.{name}", grad, wanted[name]
    else:
        yield "logits", decoder(ids, noise=noise, run=run), gpt2(ids, noise=noise, run=run)


def starts(side, module, ids, noise=None, run="keep"):
    """The weights start with the deviations that the docstring names, on a model large enough to tell."""
    model = side.get("models.Decoder")(DecoderConfig(64, 64, 64, 2, 1, bias=True), dtype=side.dtype)
    for name, value in model.state_dict().items():
        array = side.numpy(value)
        if name.endswith("proj.weight") or name.startswith(("tokens", "positions")):
            want = 0.01 if name.endswith(("o_proj.weight", "down_proj.weight")) else 0.02
            yield f"deviation of {name}", abs(float(array.std()) / want - 1) < 0.1, True
        elif name.endswith("proj.bias"):
            yield name, bool((array == 0).all()), True


_TINY = DecoderConfig(5, 3, 4, 1, 2)


@case(
    "models.Decoder",
    bench=dict(init=dict(config=DecoderConfig(256, 128, 96, 4, 4)), call=dict(ids=ids(16, 128, below=256))),
    # Well-conditioned: branches smaller than the skip, norms near 1. Hostile ones are the block's own; several on end blow rounding up.
    fill={"proj.weight": array(scale=0.3, hostile=False), "norm1.weight": array(low=0.5, high=1.5),
          "norm2.weight": array(low=0.5, high=1.5), "bias": array(hostile=False), "relative": array(hostile=False)},
    refuses=[
        dict(init=dict(config=_TINY), call=dict(ids=ids(2, 4, below=5))),
        dict(init=dict(config=_TINY), call=dict(ids=ids(2, 3, below=9, at_least=5))),
        dict(init=dict(config=_TINY), call=dict(ids=array(2, 3))),
        dict(init=dict(config=_TINY), call=dict(ids=ids(below=5))),
        dict(init=dict(config=dataclasses.replace(_TINY, activation="swiglue"))),
    ],
    also=[loss, is_gpt2_with_its_choices, extends, starts],
    equivalent={
    },
)
def decoder(draw):
    heads, options = draw(integer(1, 2)), attention_options(draw)
    t, vocabulary = draw(size(0, 5)), draw(size(1, 7))
    # A norm over two entries has a gradient of zero, which is rounding over rounding; over three it is ill-conditioned.
    width = heads * (2 * draw(integer(2, 3)) if draw.ordinary else 2 if draw.edges else 4)
    options["positions"] = options.get("positions") or draw(one_of("none", "learned", "sinusoidal"))
    config = DecoderConfig(
        vocabulary=vocabulary, max_length=max(t, 1) + draw(integer(0, 3)), d_model=width, n_layers=draw(integer(1, 2)),
        n_heads=heads, d_hidden=draw(maybe(integer(1, 5))), dropout=draw(one_of(0.0, 0.1, 0.6)), norm_eps=draw(one_of(1e-5, 1e-3)),
        norm=draw(one_of("pre", "post", "none")), norm_type=draw(one_of("layer", "rms")), bias=draw(one_of(False, True)),
        activation=draw(one_of("gelu", "mish", "relu", "swiglu")),
        **{name: value for name, value in options.items() if isinstance(value, (str, int, float))},
    )
    return dict(
        init=dict(config=config),
        call=dict(
            ids=ids(draw(integer(0, 3)), t, below=vocabulary), noise=draw(left_out(maybe(noise()))),
            run=draw(left_out(one_of("keep", "recompute"))),
        ),
    )
