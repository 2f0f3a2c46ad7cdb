"""Transformers' models with our weights, through the files that we write for them."""

import tempfile
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from byhand.hugging_face.directory import save_hugging_face


def causal(config: Any, state: Mapping[str, NDArray], device: str = "cpu", dtype: str = "float32") -> Any:
    """The causal language model of our config with our state."""
    import torch
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as folder:
        save_hugging_face(folder, config, state)
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    return model.to(device)
