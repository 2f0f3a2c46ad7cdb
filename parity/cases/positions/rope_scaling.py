"""What the dispatcher is fed: a config of every type, with each option given and left out; and that it passes each to its scheme."""

from byhand.configs.rope import ROPE_TYPES, RopeConfig
from parity.cases import case, flag, integer, left_out, maybe, number, one_of
from parity.values import LEFT_OUT


def its_scheme(side, config, length=None):
    """The frequencies are those of the scheme's own function, and only two attend to the length."""
    got = side.get("positions.rope_frequencies")(config, length=length)
    width, base = config.width, config.base
    kind = config.type
    names = {"default": "rotary_frequencies", "linear": "interpolated_frequencies", "dynamic": "dynamic_ntk_frequencies"}
    options = {
        "default": (),
        "linear": ("factor",),
        "ntk": ("factor",),
        "dynamic": ("factor", "original_length"),
        "yarn": ("factor", "original_length", "beta_fast", "beta_slow", "truncate"),
        "llama3": ("factor", "original_length", "low_freq_factor", "high_freq_factor"),
        "longrope": ("original_length", "short_factor", "long_factor"),
    }[kind]
    given = {name: getattr(config, name) for name in options} | ({"length": length} if config.reads_length else {})
    yield "frequencies", got.frequencies, side.get("positions." + names.get(kind, f"{kind}_frequencies"))(width, base=base, **given)

    want = 1.0
    if config.attention_factor is not None:
        want = config.attention_factor
    elif kind == "longrope":
        want = side.get("positions.longrope_attention_factor")(config.factor, original_length=config.original_length)
    elif kind == "yarn":
        scales = {} if config.mscale is None else dict(mscale=config.mscale, mscale_all_dim=config.mscale_all_dim)
        want = side.get("positions.yarn_attention_factor")(config.factor, **scales)
    yield "attention_factor", got.attention_factor, want


@case(
    "positions.rope_frequencies",
    gradient=False,
    also=[its_scheme],
    refuses=[
        dict(config=dict(width=4)),
        dict(config=RopeConfig(width=4), length=-1),
        dict(config=RopeConfig(width=4), length=2.0),
    ],
    bench=dict(config=RopeConfig(width=128, type="yarn", factor=8.0, original_length=4096)),
)
def rope_frequencies(draw):
    kind, pairs = draw(one_of(*ROPE_TYPES)), draw(integer(2, 8))
    factor = dict(factor=draw(one_of(1, 8.0, number(1.0, 40.0))))
    trained = dict(original_length=draw(one_of(16, 512, integer(2, 9000))))
    attention = dict(attention_factor=draw(maybe(number(0.5, 1.5))))
    options = {
        "default": {},
        "linear": factor,
        "ntk": factor,
        "dynamic": factor | trained,
        "yarn": factor | trained | dict(beta_fast=draw(left_out(number(3.0, 40.0))), beta_slow=draw(left_out(number(0.2, 3.0))),
                                        truncate=draw(left_out(flag())))
        | draw(one_of(attention, {}, dict(mscale=draw(one_of(1.0, 0.707)), mscale_all_dim=draw(one_of(1.0, 0.5))))),
        "llama3": factor | trained | dict(low_freq_factor=draw(number(0.5, 2.0)), high_freq_factor=draw(number(2.5, 8.0))),
        "longrope": factor | trained | attention
        | {name: [draw(number(1.0, 60.0)) for _ in range(pairs)] for name in ("short_factor", "long_factor")},
    }[kind]
    config = RopeConfig(width=2 * pairs, type=kind, base=draw(one_of(10000.0, 500.0, 5e5)),
                        **{name: value for name, value in options.items() if value is not LEFT_OUT})
    return dict(config=config, length=draw(left_out(maybe(one_of(0, 16, 17, 512, 513, integer(1, 9999))))))
