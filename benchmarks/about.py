"""What a process that measures says of itself."""

from typing import Any


def describe() -> dict[str, Any]:
    """The libraries of this process, the BLAS that NumPy loaded as it names itself, and the GPU's name where there is one."""
    import numpy as np
    import torch

    known: dict[str, Any] = {"numpy": np.__version__, "torch": torch.__version__, "torch_threads": torch.get_num_threads()}
    try:
        from threadpoolctl import threadpool_info

        pools = [p for p in threadpool_info() if p["user_api"] == "blas" and "numpy" in p["filepath"]]
        known["blas"] = "; ".join(f"{p['internal_api']} {p['version']} {p.get('architecture', '')}".strip() for p in pools)
        known["blas_threads"] = max((p["num_threads"] for p in pools), default=None)
    except ImportError:
        known["blas"] = np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
    if torch.cuda.is_available():
        known["cuda"] = torch.cuda.get_device_name()
    return known
