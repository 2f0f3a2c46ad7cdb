"""AdamW whose moments live in a file and pass through memory page by page (Dettmers et al. 2023, arXiv:2305.14314, section 3)."""

import mmap
import os
import tempfile
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from byhand.checks import choice, demand, size
from numpy_impl.optim.adamw import AdamW

_WORD = 8  # bytes; every array begins at a multiple of it


class PagedAdamW(AdamW):
    """θ ← (1 − ηλ) θ − η m̂ / (√v̂ + ε),  with  m ← β₁ m + (1 − β₁) g,  v ← β₂ v + (1 − β₂) g²:  AdamW's bits, with m and v in a file.

    The two moments are twice the size of what is trained, and each of their pages is wanted once a step. So they are mapped into memory
    from a file: a page is read when it is first touched, and given back once `resident` bytes have been worked on, and at the end of the
    step. What the operating system then still keeps of the file is cache, which it writes out and drops when memory is short; no forward
    or backward competes with it. The price is one and a half to two times the time of a step.

    Parameters
    ----------
    params, lr, betas, eps, weight_decay, maximize, groups   as in `AdamW`
    resident : int   bytes of the moments that may be in the process's memory at once (16 MiB), to within one piece: 256 KiB, or one row
                     of a parameter that is not contiguous and has longer rows
    page_dir : str or os.PathLike, optional
        directory of the file, by default the system's for temporary files. It should lie on a disk: what is called a file on a tmpfs is
        memory. The file has no name and vanishes with the process, however that ends; `state_dict` is what a run is resumed from.

    `state_dict` returns the live arrays: they are in memory as far as they have been read, until the next step.

    Raises
    ------
    ValueError   as AdamW; or if resident is not a positive integer, or page_dir no directory
    OSError      if the disk has no room for the moments: all of it is reserved at the start

    Examples
    --------
    >>> params = {"w": np.array([1.0, 2.0, 3.0]), "bias": np.array([1.0])}
    >>> optimizer = PagedAdamW(params, lr=0.1, weight_decay=0.1, groups=[{"pattern": "bias", "weight_decay": 0.0}])
    >>> optimizer.step({"w": np.array([1e-3, -5.0, 0.0]), "bias": np.array([2.0])})
    >>> params["w"].round(4), params["bias"].round(4)
    (array([0.89, 2.08, 2.97]), array([0.9]))
    """

    def __init__(
        self,
        params: Mapping[str, NDArray],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        maximize: bool = False,
        groups: Iterable[Mapping[str, Any]] | None = None,
        resident: int = 16 << 20,
        page_dir: str | os.PathLike | None = None,
    ):
        choice("PagedAdamW", (False, True), maximize=maximize)
        size("PagedAdamW", resident=resident)
        is_directory = isinstance(page_dir, (str, os.PathLike)) and os.path.isdir(page_dir)
        demand("PagedAdamW", page_dir is None or is_directory, "page_dir as an existing directory", page_dir=page_dir)
        self._resident, self._in_memory = resident, 0
        self._page_dir = None if page_dir is None else os.fspath(page_dir)
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, maximize=maximize, groups=groups)

    def step(self, grads: Mapping[str, NDArray], lr: float | None = None) -> None:
        """Update every parameter from its gradient, as `AdamW.step` does; afterwards no page of the moments is in memory."""
        super().step(grads, lr)
        self._give_back()

    def load_state_dict(self, state: Mapping[str, NDArray]) -> None:
        """Copy a `state_dict` into place, as `AdamW.load_state_dict` does, within the same bound."""
        super().load_state_dict(state)
        self._give_back()

    def __getstate__(self):
        raise TypeError("PagedAdamW cannot be copied or pickled: its moments lie in a file; make another and hand it the state_dict()")

    def _allocate(self, kept):
        places, end = {}, 0
        for name, keys in kept.items():
            for key in keys:
                places[name, key] = end
                end += -(-self.params[name].nbytes // _WORD) * _WORD
        length = max(end, 1)                                        # nothing at all cannot be mapped
        with tempfile.TemporaryFile(dir=self._page_dir) as file:    # unlinked at once; the map keeps it alive
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, length)        # a full disk is an error now, not a crash in the middle of a step
            else:
                file.truncate(length)
            self._pages = mmap.mmap(file.fileno(), length)          # zeros: what a file is extended by reads as zero
        return {
            name: {key: np.ndarray(self.params[name].shape, self.params[name].dtype, self._pages, places[name, key]) for key in keys}
            for name, keys in kept.items()
        }

    def _worked_on(self, nbytes):
        self._in_memory += nbytes
        if self._in_memory >= self._resident:
            self._give_back()

    def _give_back(self):
        # The map is shared with the file, so that this loses nothing: what has been written stays in the system's page cache.
        self._in_memory = 0
        if hasattr(mmap, "MADV_DONTNEED"):
            self._pages.madvise(mmap.MADV_DONTNEED)
