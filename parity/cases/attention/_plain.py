"""How a variant of attention is held to plain attention: one cotangent, and what both make of it."""

from parity.values import key_rng


def results(side, function, **arrays):
    """y and the gradient of every array, by label, of `function(*arrays)` under a random cotangent that depends on the shape of y alone."""
    if side.name == "numpy":
        y, backward = function(*arrays.values())
        grads = backward(_cotangent(side, y))
    else:
        import torch

        leaves = [array.detach().requires_grad_(True) for array in arrays.values()]
        y = function(*leaves)
        grads = [None] * len(leaves)
        if y.requires_grad:
            grads = torch.autograd.grad(y, leaves, _cotangent(side, y), allow_unused=True)
        grads = [torch.zeros_like(leaf) if grad is None else grad for leaf, grad in zip(leaves, grads, strict=True)]
    return {"y": y} | {f"d{name}": grad for name, grad in zip(arrays, grads, strict=False)}


def both(got, want):
    """(label, got, want) of everything that `want` names."""
    for label, value in want.items():
        yield label, got[label], value


def _cotangent(side, y):
    return side.array(key_rng("cotangent", tuple(y.shape)).standard_normal(tuple(y.shape)))


def last_queries(name):
    """The law that queries stand beside the last keys: of the last n alone, attention makes what it makes of them among all."""
    def the_last_queries_alone(side, query, **inputs):
        t, s, function = query.shape[-2], inputs["latent" if "latent" in inputs else "key"].shape[-2], side.get(name)
        if "block" in name and t > s:
            return                                                      # blocks are counted from the first query then
        given = {k: v for k, v in inputs.items() if k not in ("noise", "dropout")}
        y = _output(side, function(query=query, **given))
        for n in range(t + 1) if t < 9 else (0, 1, 66, t - 1):
            own = {k: _of_queries(k, v, t, n) for k, v in given.items()}
            if "position_key" in own:                                   # as many as there are distances
                own["position_key"] = own["position_key"][..., : s + max(n, 1) - 1, :]
            yield f"the last {n}", _output(side, function(query=query[..., t - n :, :], **own)), y[..., t - n :, :]

    return the_last_queries_alone


def _of_queries(name, value, t, n):
    """What belongs to the last n of T queries, of what has an axis of queries; one row for all of them stays."""
    if value is not None and (name == "query_rope" or (name in ("mask", "bias") and len(value.shape) > 1 and value.shape[-2] == t != 1)):
        return value[..., t - n :, :]
    return value


def _output(side, result):
    return result[0] if side.name == "numpy" else result
