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
