"""PagedAdamW: how much memory it takes, that no file is left, that resuming keeps the bits, and bitsandbytes' formula."""

import copy
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch

import numpy_impl.optim.adamw
import numpy_impl.optim.paged_adamw
import torch_impl.optim.adamw
import torch_impl.optim.paged_adamw
from torch_impl.optim.paged_adamw import _bitsandbytes_adamw

MiB = 1 << 20
NumPyPaged, TorchPaged = numpy_impl.optim.paged_adamw.PagedAdamW, torch_impl.optim.paged_adamw.PagedAdamW
SHAPES = {"attn.weight": (130, 700), "attn.bias": (13,), "scale": (), "none": (0, 3)}

STEPS = """
import sys
import numpy as np
side, resident = sys.argv[1], int(sys.argv[2])
params = {str(i): np.ones(8 << 20, np.float32) for i in range(4)}       # 128 MiB, so 256 MiB of moments
grads = {name: np.full(8 << 20, 0.5, np.float32) for name in params}
state = {f"{name}.{key}": np.ones(8 << 20, np.float32) for name in params for key in ("exp_avg", "exp_avg_sq")}
state["step"] = np.array(7)
if side == "numpy":
    from numpy_impl.optim.paged_adamw import PagedAdamW
else:
    import torch
    from torch_impl.optim.paged_adamw import PagedAdamW
    params, grads, state = ({name: torch.from_numpy(array) for name, array in arrays.items()} for arrays in (params, grads, state))

def memory(field):
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith(field))

def peak(work):
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")                                                 # the high-water mark becomes what is resident now
    before = memory("VmRSS")
    work()
    return memory("VmHWM") - before

optimizer = PagedAdamW(params, lr=0.1, resident=resident)
optimizer.step(grads)                                                   # loads what a step needs besides
print(peak(lambda: optimizer.step(grads)))
print(peak(lambda: optimizer.load_state_dict(state)))
print(memory("RssFile"))
print(peak(lambda: [array.sum() for array in optimizer.state_dict().values()]))
print(memory("RssFile"))
"""


def values(step, dtype=np.float32):
    rng = np.random.default_rng(step)
    return {name: np.asarray(rng.standard_normal(shape), dtype) for name, shape in SHAPES.items()}


def tensors(arrays):
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="no /proc tells the peak of resident memory here")
@pytest.mark.parametrize("side", ["numpy", "torch"])
@pytest.mark.parametrize("resident", [4 * MiB, 40 * MiB])
def test_256_MiB_of_moments_pass_through_the_bound(side, resident):
    run = subprocess.run([sys.executable, "-c", STEPS, side, str(resident)], capture_output=True, text=True, check=True,
                         env=os.environ | {"PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"})
    step, load, given_back, read, all_of_it = map(int, run.stdout.split())
    assert resident // 2 <= step <= resident + 2 * MiB, f"{step / MiB:.1f} MiB"
    assert load <= resident + 2 * MiB, f"{load / MiB:.1f} MiB"
    assert all_of_it - given_back >= 250 * MiB and read >= 250 * MiB     # so it is these pages that are counted


@pytest.mark.parametrize("paged, plain", [(NumPyPaged, numpy_impl.optim.adamw.AdamW), (TorchPaged, torch_impl.optim.adamw.AdamW)])
@pytest.mark.parametrize("maximize", [False, True])
def test_each_side_takes_its_own_adamws_steps_and_resumes_with_the_same_bits(paged, plain, maximize):
    convert = tensors if paged is TorchPaged else dict
    groups = [{"pattern": "*.bias", "weight_decay": 0.0, "lr_scale": 0.5}, {"pattern": "attn.*", "betas": (0.5, 0.75)}]
    options = dict(lr=0.1, weight_decay=0.1, groups=groups, maximize=maximize)
    params, others, thirds = (convert(values(0)) for _ in range(3))
    first, other = paged(params, resident=3000, **options), plain(others, **options)
    third = paged(thirds, resident=3000, **options)
    for step in range(1, 9):
        for optimizer in (first, other, third):
            optimizer.step(convert(values(step)))
        if step == 4:       # another optimizer goes on with the third's parameters
            resumed = paged(thirds, resident=700, **options)
            resumed.load_state_dict(third.state_dict())
            third = resumed
        for key in SHAPES:
            assert np.array_equal(np.asarray(params[key]), np.asarray(thirds[key])), (key, step)
            assert np.array_equal(np.asarray(params[key]), np.asarray(others[key])), (key, step)
    loaded = plain(others, **options)
    loaded.load_state_dict(first.state_dict())       # the states have the same names and shapes
    assert loaded.state_dict()["step"] == 8


@pytest.mark.parametrize("make", [NumPyPaged, TorchPaged])
@pytest.mark.parametrize("copied", [copy.deepcopy, pickle.dumps])
def test_a_copy_would_have_no_file_and_is_refused(make, copied):
    optimizer = make(values(0) if make is NumPyPaged else tensors(values(0)), lr=0.1)
    with pytest.raises(TypeError, match="hand it the state_dict"):
        copied(optimizer)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_passes_through_the_file_in_its_own_bits(dtype):
    params, others = ({name: torch.nn.Parameter(t.to(dtype)) for name, t in tensors(values(0)).items()} for _ in range(2))
    paged, plain = TorchPaged(params, lr=0.1, resident=1), torch_impl.optim.adamw.AdamW(others, lr=0.1)
    for step in range(1, 4):
        grads = {name: t.to(dtype) for name, t in tensors(values(step)).items()}
        paged.step(grads)
        plain.step(grads)
    assert all(torch.equal(params[name], others[name]) for name in SHAPES)


@pytest.mark.parametrize("make", [NumPyPaged, TorchPaged])
def test_no_file_is_left_and_states_outlive_their_optimizer(make, tmp_path):
    params = values(0) if make is NumPyPaged else tensors(values(0))
    grads = values(1) if make is NumPyPaged else tensors(values(1))
    optimizer = make(params, lr=0.1, betas=(0.5, 0.5), page_dir=tmp_path)
    optimizer.step(grads)
    assert list(tmp_path.iterdir()) == []
    state = optimizer.state_dict()
    del optimizer
    assert np.array_equal(np.asarray(state["attn.weight.exp_avg"]), 0.5 * np.asarray(grads["attn.weight"]))


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system reserves no room in files")
@pytest.mark.parametrize("make", [NumPyPaged, TorchPaged])
def test_a_full_disk_is_an_error_at_the_start(make, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OSError, match="No space"):
        make(values(0) if make is NumPyPaged else tensors(values(0)), lr=0.1)


@pytest.mark.parametrize("maximize", [False, True])
def test_bitsandbytes_takes_the_same_steps(maximize):
    """On the CPU it does not page, which it warns of, but takes its steps: with the decay and the sign that AdamW has."""
    pytest.importorskip("bitsandbytes")
    ours, theirs = tensors(values(0)), tensors(values(0))
    del ours["none"], theirs["none"]
    optimizer = TorchPaged(ours, lr=0.1, weight_decay=0.1, maximize=maximize, kernel="plain")
    group = {"params": list(theirs.values()), "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1}
    with pytest.warns(UserWarning, match="not supported on CPU"):
        paged = _bitsandbytes_adamw()([group], lr=0.1, fused=True, maximize=maximize)
    for step in range(1, 6):
        grads = tensors(values(step))
        del grads["none"]
        optimizer.step(grads, lr=0.1)
        for key, param in theirs.items():
            param.grad = grads[key].clone()
        paged.step()
        for key, param in theirs.items():
            assert torch.allclose(param, ours[key], rtol=1e-5, atol=1e-6), (key, step)
            for got, want in zip(paged.moments(param), optimizer._kept(key).values(), strict=True):
                assert torch.allclose(got, want, rtol=1e-5, atol=1e-7), (key, step)


def test_what_bitsandbytes_cannot_do_is_refused_by_name():
    with pytest.raises(ValueError, match="not on CUDA"):
        TorchPaged(tensors(values(0)), lr=0.1, kernel="bitsandbytes")
    with pytest.raises(ValueError, match="did you mean 'plain'"):
        TorchPaged(tensors(values(0)), lr=0.1, kernel="plane")


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", ["plain", "bitsandbytes", "auto"])
@pytest.mark.parametrize("maximize", [False, True])
def test_parameters_on_a_gpu(kernel, maximize):
    if kernel == "bitsandbytes":
        pytest.importorskip("bitsandbytes")
    rng = np.random.default_rng(0)
    arrays = [{"w": rng.standard_normal((400, 300)).astype(np.float32), "b": rng.standard_normal(7).astype(np.float32)} for _ in range(6)]
    ours, theirs = ({name: torch.from_numpy(a.copy()).to(device) for name, a in arrays[0].items()} for device in ("cuda", "cpu"))
    options = dict(lr=0.1, weight_decay=0.1, maximize=maximize, groups=[{"pattern": "b", "weight_decay": 0.0}])
    on_gpu, on_cpu = TorchPaged(ours, kernel=kernel, **options), torch_impl.optim.adamw.AdamW(theirs, **options)
    for step, grads in enumerate(arrays[1:]):
        if step == 3:
            state = {key: value.clone() for key, value in on_gpu.state_dict().items()}
            on_gpu = TorchPaged(ours, kernel=kernel, **options)
            on_gpu.load_state_dict(state)
        on_gpu.step({name: torch.from_numpy(a).cuda() for name, a in grads.items()})
        on_cpu.step({name: torch.from_numpy(a) for name, a in grads.items()})
        for name, param in theirs.items():
            assert torch.allclose(ours[name].cpu(), param, rtol=1e-5, atol=1e-6), (name, step)
