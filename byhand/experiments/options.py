"""What all experiments demand of the options that they share."""

from typing import Any

from byhand.checks import choice, demand, in_range, not_negative, positive, size


def check_training(who: str, options: Any) -> None:
    """Fail unless a backend and its device exist, sizes are counts, and AdamW and its schedule of warmup and cosine can use the numbers.

    Raises
    ------
    ValueError   in the name of `who`
    """
    choice(who, ("torch", "numpy"), backend=options.backend)
    choice(who, ("cpu", "cuda"), device=options.device)
    demand(who, options.backend == "torch" or options.device == "cpu", "device 'cpu' for the numpy backend", device=options.device)
    size(who, steps=options.steps, batch=options.batch, d_model=options.d_model, n_layers=options.n_layers, n_heads=options.n_heads)
    size(who, at_least=0, warmup=options.warmup)
    positive(who, lr=options.lr, max_norm=options.max_norm)
    not_negative(who, weight_decay=options.weight_decay)
    in_range(who, 0, 1, final_lr=options.final_lr)
