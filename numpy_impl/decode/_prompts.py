"""What every way of writing text asks of its prompts."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from byhand.checks import booleans, demand, exact_rank, given, integers, same_shape


def room_behind(function: str, model: Any, ids: NDArray, real: NDArray | None, cache: Any, *, name: str = "model") -> NDArray | None:
    """Refuse prompts ids (B, T), real (B, T) that will not do; -> (B,) how many tokens the model can read behind each; None: any number."""
    demand(function, hasattr(model, "extend"), f"a {name} that can be extended by a token", **{name: type(model).__name__})
    told = cache is not None or not hasattr(model, "encode")
    demand(function, told, f"a cache of an encoder–decoder: {name}.new_cache(source)", cache=cache)
    given(function, ids=ids)
    integers(function, ids=ids)
    exact_rank(function, 2, ids=ids)
    booleans(function, real=real)
    same_shape(function, ids.shape, real=real)
    b, t = ids.shape
    prompts = np.full(b, t) if real is None else real.sum(1)
    prompted = {"ids": ids} if real is None else {"ids": ids, "real": real}
    demand(function, bool((prompts > 0).all()), "at least one token in every prompt", **prompted)
    most = getattr(model.config, "max_length", None)
    if most is None:
        return None
    before = getattr(cache, "lengths", ())
    read = prompts + before if len(before) == b else prompts
    fits = bool((read <= most).all())
    demand(function, fits, f"prompts of at most {most} tokens, the {name}'s context", tokens=int(read.max(initial=0)))
    return most - read


def pad_of(config: Any) -> int:
    """The token that stands behind the end."""
    return config.pad if config.pad is not None else config.eos[0] if config.eos else 0
