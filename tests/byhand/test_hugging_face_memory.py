"""What loading and converting take: the model once, and one array of it."""

import subprocess
import sys

import numpy as np
import pytest

from byhand.configs.bert import BertConfig
from byhand.configs.gpt2 import GPT2Config
from byhand.configs.llama import LlamaConfig
from byhand.configs.mixtral import MixtralConfig
from byhand.configs.t5 import T5Config
from byhand.hugging_face.directory import save_hugging_face
from tests.byhand.hugging_face_models import class_of

SIZES = dict(d_model=512, n_heads=8, d_hidden=2048)
CONFIGS = {
    "GPT2": GPT2Config(vocabulary=8000, max_length=64, n_layers=9, **SIZES),
    "Llama": LlamaConfig(vocabulary=8000, max_length=64, n_layers=7, **SIZES),
    "Mixtral": MixtralConfig(vocabulary=8000, max_length=64, n_layers=3, n_experts=4, d_expert=1024, n_kv_heads=2, **SIZES),
    "BertMaskedLM": BertConfig(vocabulary=8000, max_length=64, n_layers=9, **SIZES),
    "T5": T5Config(vocabulary=8000, encoder_layers=4, decoder_layers=4, **SIZES),
}
OPEN = """
import sys, numpy as np
import byhand.commands.convert, byhand.hugging_face.directory, numpy_impl.models.CLASS_FILE
from byhand.model_source import open_model
if "torch" in sys.argv:
    import torch, torch_impl.models.CLASS_FILE
    torch.ones(4).bfloat16().sum()
def peak():
    return 1024 * int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
open("/proc/self/clear_refs", "w").write("5")             # the peak begins here
before = peak()
WORK
print(peak() - before)
"""


def peak_of(work, kind, *arguments):
    """How many bytes more a process of its own held at most."""
    code = OPEN.replace("WORK", work).replace("CLASS_FILE", "bert" if kind.startswith("Bert") else kind.lower())
    ran = subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return int(ran.stdout.split()[-1])


def written(path, kind, dtype):
    """A directory of about 30 million parameters; (parameters, the largest array)."""
    config = CONFIGS[kind]
    shapes = {name: array.shape for name, array in class_of(kind)(config).state_dict().items()}
    state = {name: np.random.default_rng(0).standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    save_hugging_face(path, config, state, kind=kind, dtype=dtype, max_shard=40_000_000)
    sizes = [array.size for array in state.values()]
    return sum(sizes), max(sizes)


linux = pytest.mark.skipif(sys.platform != "linux", reason="VmHWM is told by Linux")


@linux
@pytest.mark.parametrize("kind", [
    "Llama", *(pytest.param(kind, marks=pytest.mark.slow) for kind in CONFIGS if kind != "Llama"),
])
def test_a_model_from_files_in_half_precision_is_in_memory_once(tmp_path, kind):
    count, largest = written(tmp_path, kind, "bfloat16")
    found = peak_of("model = open_model(sys.argv[1]).model", kind, tmp_path)
    assert 4 * count <= found <= 4 * count + 4 * largest + 4_000_000


@linux
@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("side", ["numpy", "torch"])
def test_other_dtypes_and_torch_are_no_dearer(tmp_path, side, dtype):
    count, largest = written(tmp_path, "Llama", dtype)
    found = peak_of(f"model = open_model(sys.argv[1], side={side!r}).model", "Llama", tmp_path, side)
    assert 4 * count <= found <= 4 * count + 4 * largest + (4_000_000 if side == "numpy" else 8_000_000)


@linux
@pytest.mark.parametrize("kind", [
    "Llama", *(pytest.param(kind, marks=pytest.mark.slow) for kind in CONFIGS if kind != "Llama"),
])
def test_a_conversion_holds_one_array_at_a_time(tmp_path, kind):
    _, largest = written(tmp_path / "from", kind, "bfloat16")
    work = "byhand.commands.convert.convert(sys.argv[1], out=sys.argv[2], dtype='float16', max_shard=None, seed=0)"
    assert peak_of(work, kind, tmp_path / "from", tmp_path / "to") <= 2 * 4 * largest + 40_000_000
