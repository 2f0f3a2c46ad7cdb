"""AdamW whose moments do not stay in the memory that it works in (paged states: Dettmers et al. 2023, arXiv:2305.14314, section 3)."""

import functools
import importlib.util
import mmap
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim.adamw import adamw

from byhand.checks import choice, demand, fail, fractions, not_negative, size
from torch_impl.optim.optimizer import Optimizer

Kernel = Literal["auto", "plain", "bitsandbytes"]
_WORD = 8  # bytes; every tensor begins at a multiple of it


class PagedAdamW(Optimizer):
    """θ ← (1 − ηλ) θ − η m̂ / (√v̂ + ε),  with  m ← β₁ m + (1 − β₁) g,  v ← β₂ v + (1 − β₂) g²,  with m and v paged.

    `kernel` is one of

    - ``"plain"``: m and v are tensors of the CPU, mapped from a file in `page_dir`; at most `resident` bytes of them are in memory at once.
      A parameter on a GPU borrows them piece by piece.
    - ``"bitsandbytes"``: m and v lie in CUDA's managed memory, float32 whatever the parameters are, which the driver moves between the GPU
      and the host as memory runs short; `resident` and `page_dir` do not concern it. Parameters on CUDA in float16, bfloat16 or float32.
    - ``"auto"``: bitsandbytes where it can, else plain.
    """

    _optimizer: Any

    def __init__(
        self,
        params: Mapping[str, Tensor],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        maximize: bool = False,
        groups: Iterable[Mapping[str, Any]] | None = None,
        resident: int = 16 << 20,
        page_dir: str | os.PathLike | None = None,
        kernel: Kernel = "auto",
    ):
        choice("PagedAdamW", (False, True), maximize=maximize)
        size("PagedAdamW", resident=resident)
        is_directory = isinstance(page_dir, (str, os.PathLike)) and os.path.isdir(page_dir)
        demand("PagedAdamW", page_dir is None or is_directory, "page_dir as an existing directory", page_dir=page_dir)
        choice("PagedAdamW", ("auto", "plain", "bitsandbytes"), kernel=kernel)

        def make(groups: Iterable[dict[str, Any]], **flags: Any) -> torch.optim.Optimizer:
            groups = list(groups)
            why_not = _why_not_bitsandbytes([param for group in groups for param in group["params"]])
            if kernel == "bitsandbytes" and why_not:
                fail("PagedAdamW", "for kernel='bitsandbytes' what it can do", why_not)
            if kernel == "plain" or why_not:
                return _InFile(groups, resident=resident, page_dir=page_dir, **flags)
            return _bitsandbytes_adamw()(groups, **flags)

        options = dict(betas=betas, eps=eps, weight_decay=weight_decay)
        super().__init__(make, params, lr=lr, check=_check, groups=groups, flags={"maximize": maximize}, **options)

    def _keeps(self, options):
        return "exp_avg", "exp_avg_sq"

    def _kept(self, name):
        return dict(zip(("exp_avg", "exp_avg_sq"), self._optimizer.moments(self.params[name]), strict=True))

    def _load(self, state):
        for name, param in self.params.items():
            self._optimizer.state[param]["step"] = self.steps
            for key, kept in self._kept(name).items():
                for mine, given in self._optimizer.pieces(kept, state[f"{name}.{key}"]):
                    mine.copy_(given)
                    self._optimizer.give_back()


class _InFile(torch.optim.Optimizer):
    """torch's AdamW, on moments that are mapped from a file."""

    def __init__(self, groups, *, lr, fused, maximize, resident, page_dir):
        super().__init__(groups, {"lr": lr})
        self._fused, self._maximize, self._resident = bool(fused), maximize, resident
        params = [param for group in self.param_groups for param in group["params"]]
        room = [-(-param.numel() * param.element_size() // _WORD) * _WORD for param in params]
        length = max(2 * sum(room), 1)
        with tempfile.TemporaryFile(dir=page_dir) as file:          # as on the NumPy side, where it is explained
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, length)
            else:
                file.truncate(length)
            self._pages = mmap.mmap(file.fileno(), length)
        start = 0
        for param, nbytes in zip(params, room, strict=True):
            self.state[param] = {"step": 0}
            for key in ("exp_avg", "exp_avg_sq"):
                self.state[param][key] = _mapped(self._pages, param, start)
                start += nbytes

    def __getstate__(self):
        raise TypeError("PagedAdamW cannot be copied or pickled: its moments lie in a file; make another and hand it the state_dict()")

    def moments(self, param):
        return self.state[param]["exp_avg"], self.state[param]["exp_avg_sq"]

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for param in group["params"]:
                self.state[param]["step"] += 1
                for p, grad, *kept in self.pieces(param, param.grad, *self.moments(param)):
                    m, v = (moment.to(p.device) for moment in kept)         # themselves, if p is on the CPU
                    adamw(
                        [p], [grad], [m], [v], [], [torch.tensor(self.state[param]["step"] - 1.0, device=p.device)],
                        fused=self._fused, amsgrad=False, beta1=group["betas"][0], beta2=group["betas"][1], lr=group["lr"],
                        weight_decay=group["weight_decay"], eps=group["eps"], maximize=self._maximize,
                    )
                    for moment, updated in zip(kept, (m, v), strict=True):
                        if updated is not moment:
                            moment.copy_(updated)
                    self.give_back()

    def give_back(self):
        if hasattr(mmap, "MADV_DONTNEED"):
            self._pages.madvise(mmap.MADV_DONTNEED)

    def pieces(self, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
        """The same rows of every tensor, so many that two of them are within the bound; tensors without strides as one long row."""
        walked = [t.reshape(-1) if self._fused else torch.atleast_1d(t) for t in tensors]
        row = walked[0][:1]
        rows = max(1, self._resident // (2 * max(1, row.numel() * row.element_size())))
        if self._fused:
            rows = -(-rows // 64) * 64      # whole vectors: the kernel rounds what is left over differently, so that bits would vary
        return zip(*(t.split(rows) for t in walked), strict=True)


def _mapped(pages: mmap.mmap, param: Tensor, start: int) -> Tensor:
    """A tensor of the CPU like `param`, in the mapped file from byte `start`."""
    if param.numel() == 0:
        return torch.zeros(param.shape, dtype=param.dtype)          # frombuffer makes none of these
    return torch.frombuffer(pages, dtype=param.dtype, count=param.numel(), offset=start).view(param.shape)


@functools.cache
def _bitsandbytes_adamw() -> Callable[..., torch.optim.Optimizer]:
    """bitsandbytes' paged AdamW with the decay and the sign as torch.optim.AdamW has them."""
    from bitsandbytes.optim.adamw import PagedAdamW as Paged

    class Decoupled(Paged):
        def __init__(self, groups, *, lr, fused, maximize):
            # Its kernels have had the decay after the update in some versions, which then decays too; so theirs is none, and ours is here.
            groups = [group | {"weight_decay": 0.0, "decay": group["weight_decay"]} for group in groups]
            super().__init__(groups, lr=lr)
            self._maximize = maximize
            for i, group in enumerate(self.param_groups):
                for j, param in enumerate(group["params"]):
                    self.init_state(group, param, i, j)

        def moments(self, param):
            return self.state[param]["state1"], self.state[param]["state2"]

        def pieces(self, *tensors):
            return [tensors]

        def give_back(self):
            """The driver's work."""

        @torch.no_grad()
        def step(self, closure=None):
            for group in self.param_groups:
                torch._foreach_mul_(group["params"], 1 - group["lr"] * group["decay"])
                if self._maximize:
                    for param in group["params"]:
                        param.grad = -param.grad
            return super().step(closure)

    return Decoupled


def _why_not_bitsandbytes(params: list[Tensor]) -> str | None:
    """Why bitsandbytes cannot page the moments of these parameters, or None if it can."""
    if any(param.device.type != "cuda" for param in params):
        return "a parameter that is not on CUDA"
    if any(param.dtype == torch.float64 for param in params):
        return "a parameter in float64"
    if not all(param.is_contiguous() for param in params):
        return "a parameter that is not contiguous"
    if importlib.util.find_spec("bitsandbytes") is None:
        return "no bitsandbytes installed"
    return None


def _check(function: str, *, betas: tuple[float, float], eps: float, weight_decay: float, lr_scale: float) -> None:
    fractions(function, 2, betas=betas)
    not_negative(function, eps=eps, weight_decay=weight_decay, lr_scale=lr_scale)
