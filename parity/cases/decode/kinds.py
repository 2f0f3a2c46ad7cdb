"""What make_stores is fed: every kind with its options, windows in all layers, in some and in none."""

import numpy as np

from parity.cases import case, left_out, one_of, size


def shown(side, *, windows, **options):
    """The kind of every store, its sizes, and which layers share a table of pages."""
    made = side.get("decode.make_stores")(windows, **options)
    found = {"layers": np.array(len(made))}
    for i, store in enumerate(made):
        found[f"{i} {type(store).__name__}"] = np.array(store.nbytes)
        for name in ("window", "kept", "recent", "block", "kind"):
            value = getattr(store, name, None)
            found[f"{i} {name}"] = np.frombuffer(str(value).encode(), np.uint8).astype(np.int64)
        table = getattr(store, "table", None)
        found[f"{i} table"] = np.array([0, 0] if table is None else [table.page, table is made[0].table])
    return found


def one_for_every_layer(side, *, windows, kind="auto", **options):
    """Which store a layer gets, written as a table; no two layers share one."""
    made = side.get("decode.make_stores")(windows, kind=kind, **options)
    names = dict(contiguous="ContiguousStore", paged="PagedStore", int8="QuantizedStore", nf4="QuantizedStore")
    want = [names.get(kind, "ContiguousStore" if window is None else "RollingStore") for window in windows]
    yield "stores", [type(store).__name__ for store in made] == want, True
    yield "of their own", len({id(store) for store in made}), len(windows)


@case("decode.make_stores", play=shown, also=[one_for_every_layer], refuses=[
    dict(windows=[None], kind="page"), dict(windows=[None], kind=None), dict(windows=[None], kind="rolling"),
    dict(windows=[3, None], kind="rolling"), dict(windows=[None], page=2), dict(windows=[3], spare=2),
    dict(windows=[None], kind="contiguous", page=2), dict(windows=[None], kind="paged", block=2),
    dict(windows=[None], kind="paged", page=0),
    dict(windows=[3], kind="rolling", spare=-1), dict(windows=[0]), dict(windows=[None], kind="int8", recent=0),
    dict(windows=[None], kind="nf4", block=0), dict(windows=[None], kind="nf4", window=3), dict(windows=[3], kind="rolling", recent=2),
])
def make_stores(draw):
    layers = draw(size(0, 3))
    kind = draw(left_out(one_of("auto", "contiguous", "rolling", "paged", "int8", "nf4")))
    some = one_of(1, 4) if kind == "rolling" else one_of(None, 3, 5)
    options = dict(
        rolling=dict(spare=draw(left_out(one_of(0, 5)))), paged=dict(page=draw(left_out(one_of(1, 4)))),
        int8=dict(recent=draw(left_out(one_of(1, 9))), block=draw(left_out(one_of(None, 4)))),
        nf4=dict(recent=draw(left_out(one_of(1, 9))), block=draw(left_out(one_of(None, 4)))),
    )
    return dict(windows=[draw(some) for _ in range(layers)], kind=kind) | (options.get(kind, {}) if isinstance(kind, str) else {})
