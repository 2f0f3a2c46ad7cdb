"""Libraries on a GPU, as columns of their own."""

import functools
from collections.abc import Callable

from benchmarks.workload import Unable, Work, peer


def on_cuda(name: str, *, of: str, needs: str) -> Callable[[Callable[..., Work]], Callable[..., Work]]:
    """Register the decorated builder as "NAME (cuda)" too; it is called with device="cuda", where there is such a device."""

    def register(build: Callable[..., Work]) -> Callable[..., Work]:
        def on_device(**options: object) -> Work:
            import torch

            if not torch.cuda.is_available():
                raise Unable("no CUDA device")
            return build(device="cuda", **options)

        peer(f"{name} (cuda)", of=of, needs=needs)(functools.wraps(build)(on_device))
        return build

    return register
