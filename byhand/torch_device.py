"""PyTorch where it is wanted, or a word about what is missing."""

from typing import Any


def torch_on(who: str, device: str) -> Any:
    """The module torch, for work on `device`, "cpu" or "cuda".

    float32 means float32 there: no TF32 products, which round to ten bits.

    Raises
    ------
    ValueError   if PyTorch is not installed, or sees no such device
    """
    try:
        import torch
    except ImportError as error:
        raise ValueError(f"{who} needs PyTorch for the torch backend: pip install 'byhand[torch]'") from error
    if device == "cuda":
        if not torch.cuda.is_available():
            raise ValueError(f"{who} needs a CUDA device for device='cuda'; PyTorch sees none")
        torch.backends.cuda.matmul.fp32_precision = "ieee"
    return torch
