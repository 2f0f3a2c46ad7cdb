"""What PagedAdamW is fed: AdamW's trajectories, under bounds that a piece fills at once or that nothing fills; and what it refuses."""

import numpy as np

from parity.cases import case, flag, left_out, one_of
from parity.cases.optim.trajectory import bench, moments, refused, refused_by_all, resumes, trajectory

_GROUPS = [
    [{"pattern": "*.bias", "weight_decay": 0.0}],
    [{"pattern": "attn.*", "lr_scale": 0.1, "betas": (0.5, 0.9)}, {"pattern": "*", "weight_decay": 0.3, "eps": 1e-3}],
]


def in_memory(side, init, params, grads, lrs):
    """AdamW, whose moments never leave memory, takes the same steps."""
    paged, plain = ({name: side.array(np.array(side.numpy(param))) for name, param in params.items()} for _ in range(2))
    adamw = {key: value for key, value in init.items() if key not in ("resident", "page_dir")}
    optimizers = side.get("optim.PagedAdamW")(paged, **init), side.get("optim.AdamW")(plain, **adamw)
    for grad, lr in zip(grads, lrs, strict=True):
        for optimizer in optimizers:
            optimizer.step(grad, lr=lr)
    for key, value in plain.items():
        yield f"{key} beside AdamW's", paged[key], value
        if side.name == "numpy":
            yield f"the bits of {key}", paged[key].tobytes() == value.tobytes(), True


def gives_back(side, init, params, grads, lrs):
    """Pages are given back as often as the bound demands: here when two pieces, or more than two, of five have been worked on."""
    if side.name != "numpy":
        return
    piece = 128 * 1024                                                  # bytes of each of the two moments
    for resident, wanted in ((4 * piece, 3), (4 * piece + 1, 2)):       # the end of the step counts
        param = np.zeros(5 * piece // np.dtype(side.dtype).itemsize, side.dtype)
        optimizer = side.get("optim.PagedAdamW")({"w": param}, lr=0.1, resident=resident)
        times: list[None] = []
        give_back = optimizer._give_back
        optimizer._give_back = lambda times=times, give_back=give_back: times.append(give_back())
        optimizer.step({"w": param + 1})
        yield f"times with resident={resident}", len(times), wanted


@case(
    "optim.PagedAdamW", kind="optimizer", bench=bench(),
    also=[resumes("optim.PagedAdamW"), moments("optim.PagedAdamW"), in_memory, gives_back],
    refuses=[
        *refused_by_all(),
        refused({"betas": (1.0, 0.999)}),
        refused({"betas": 0.9}),
        refused({"eps": -1e-8}),
        refused({"resident": 0}),
        refused({"resident": 1e6}),
        refused({"page_dir": "/no/such/directory"}),
        refused({"page_dir": 3.5}),
    ],
    equivalent={
        "_WORD = 8 -> _WORD = 9": "arrays of one parameter then begin off their alignment, which NumPy allows",
        "places, end = ({}, 0) -> places, end = ({}, 1)": "the same",
        "max(end, 1) -> max(end, 2)": "a file of two bytes that no array lies in",
        "os.posix_fallocate(file.fileno(), 0, length) -> os.posix_fallocate(file.fileno(), 1, length)": "reserves one byte less of a page",
        "16 << 20 -> 17 << 20": "another default for how much memory is used",
        "16 << 20 -> 16 << 21": "another default for how much memory is used",
    },
)
def paged_adamw(draw):
    options = {
        "betas": left_out(one_of((0.9, 0.999), (0.0, 0.5), (0.5, 0.0))),
        "eps": left_out(one_of(1e-8, 1e-3)),
        "weight_decay": left_out(one_of(0.0, 0.1)),
        "maximize": left_out(flag()),
        "groups": left_out(one_of(None, *_GROUPS)),
        "resident": left_out(one_of(1, 300_000, 1 << 30)),
        "page_dir": left_out(one_of(None, ".")),
    }
    return trajectory(draw, options, grad_scale=one_of(1.0, 1e-8))
