"""What T5 is fed: tiny sizes, plain and gated, tied and not, heads of any width, masks over the source, every way to run, dropout."""

import dataclasses

from byhand.configs.t5 import T5_PRESETS, T5Config
from parity.cases import array, case, flag, ids, integer, left_out, mask, maybe, noise, one_of, size
from parity.cases.models.transformer import extends, loss


def starts(side, module, **inputs):
    """The weights start with the deviations that the docstring names, on a model large enough to tell."""
    config = T5Config(64, 48, 16, 1, 1, d_hidden=96, head_width=4, tied=False, buckets=64)
    for name, value in side.get("models.T5")(config, dtype=side.dtype).state_dict().items():
        if name.endswith("positions"):
            want = config.d_model ** -0.5
        elif name.endswith("tokens.weight"):
            want = 1
        elif "norm" in name:
            continue
        else:
            want = value.shape[1] ** -0.5 / (2 if "q_proj" in name else 1)      # √E is 2
        yield f"deviation of {name}", abs(float(side.numpy(value).std()) / want - 1) < 0.12, True
        yield f"dtype of {name}", value.dtype == side.dtype, True


_TINY = T5Config(5, 4, 2, 1, 1, head_width=3, buckets=4, max_distance=3)


@case(
    "models.T5",
    bench=dict(init=dict(config=T5_PRESETS["t5-nano"]), call=dict(source=ids(8, 128, below=256), target=ids(8, 128, below=256))),
    # Well-conditioned: branches smaller than the skip, norms and tokens near 1. Hostile values are the blocks' own matter.
    fill={"proj.weight": array(scale=0.2, hostile=False), "positions": array(scale=0.5, hostile=False),
          "tokens.weight": array(hostile=False), **{f"norm{end}.weight": array(low=0.5, high=1.5) for end in ("", "1", "2", "_cross")}},
    refuses=[
        dict(init=dict(config=_TINY), call=dict(source=ids(below=5), target=ids(3, below=5))),
        dict(init=dict(config=_TINY), call=dict(source=ids(3, below=5), target=ids(below=5))),
        dict(init=dict(config=_TINY), call=dict(source=ids(2, 3, below=9, at_least=5), target=ids(2, 3, below=5))),
        dict(init=dict(config=_TINY), call=dict(source=ids(2, 3, below=5), target=ids(2, 3, below=9, at_least=5))),
        dict(init=dict(config=_TINY), call=dict(source=ids(2, 3, below=5), target=ids(3, 3, below=5))),
        dict(init=dict(config=_TINY), call=dict(source=ids(2, 3, below=5), target=array(2, 3))),
        dict(init=dict(config=_TINY), call=dict(source=ids(2, 3, below=5), target=ids(2, 3, below=5), source_mask=mask(2, 4))),
        dict(init=dict(config=_TINY), call=dict(source=ids(2, 3, below=5), target=ids(2, 3, below=5), source_mask=ids(2, 3, below=2))),
        dict(init=dict(config=dataclasses.replace(_TINY, activation="tanh"))),
    ],
    also=[loss, extends, starts],
)
def t5(draw):
    lead, s, t = draw(one_of((), (2,), (1, 2))), draw(size(0, 6)), draw(size(0, 6))
    # Where dropout takes all of a token, a norm divides by √ε alone: such a row is ill-conditioned, and rare enough in ordinary examples.
    width = draw(integer(6, 9)) if draw.ordinary else 1 if draw.edges else draw(integer(3, 4))
    vocabulary, buckets = draw(size(2, 6)), draw(integer(4, 7))
    config = T5Config(
        vocabulary=vocabulary, d_model=width, n_heads=draw(integer(1, 2)), encoder_layers=draw(integer(1, 2)),
        decoder_layers=draw(integer(1, 2)), d_hidden=draw(size(1, 5)), head_width=draw(integer(1, 4)),
        activation=draw(one_of("relu", "geglu_tanh")), tied=draw(flag()), buckets=buckets,
        max_distance=buckets // 2 + draw(integer(1, 3)), start=draw(integer(0, 1)), padding=draw(integer(0, 1)),
        dropout=draw(one_of(0.0, 0.1, 0.4)), norm_eps=draw(one_of(1e-6, 1e-3)),
    )
    return dict(
        init=dict(config=config),
        call=dict(
            source=ids(*lead, s, below=vocabulary), target=ids(*lead, t, below=vocabulary),
            source_mask=draw(left_out(maybe(mask(*lead, s)))), noise=draw(left_out(maybe(noise()))),
            run=draw(left_out(one_of("keep", "recompute"))),
        ),
    )
