"""Weights on their way into files: shards as transformers writes them, numbers rounded as PyTorch rounds them, whole files or none."""

import json
import re

import numpy as np
import pytest
import safetensors
import torch
from safetensors.torch import load_file, save_file

from byhand.hugging_face import writing
from byhand.hugging_face.combined import Joined, Stacked, read_into, same_values, stored_as
from byhand.hugging_face.directory import load_hugging_face, save_hugging_face
from byhand.hugging_face.on_disk import open_arrays
from byhand.hugging_face.writing import write_arrays
from tests.byhand.hugging_face_models import LLAMA, MODELS, ours_of, read_by_transformers, theirs_of

transformers = pytest.importorskip("transformers")


def test_the_index_is_the_one_that_transformers_writes(tmp_path):
    """Its names in its order, and shards no larger than asked for."""
    kind, config = MODELS["llama"]
    theirs_of(kind, config).save_pretrained(tmp_path / "theirs", max_shard_size="3KB")
    save_hugging_face(tmp_path / "ours", *load_hugging_face(tmp_path / "theirs"), max_shard=3000)
    one, other = ((tmp_path / side / "model.safetensors.index.json").read_text() for side in ("ours", "theirs"))
    ours, theirs = json.loads(one), json.loads(other)
    assert ours["metadata"] == theirs["metadata"] and list(ours["weight_map"]) == list(theirs["weight_map"])
    assert re.sub(r"-\d{5}", "", one) == re.sub(r"-\d{5}", "", other)                   # which array is in which shard is one's own affair
    files = sorted((tmp_path / "ours").glob("*.safetensors"))
    assert [file.name for file in files] == [f"model-{i:05}-of-{len(files):05}.safetensors" for i in range(1, len(files) + 1)]
    assert set(ours["weight_map"].values()) == {file.name for file in files} and len(files) > 3
    sizes = [[np.asarray(array).nbytes for array in open_arrays(file).values()] for file in files]
    assert all(sum(each) <= 3000 or len(each) == 1 for each in sizes)
    assert sum(map(sum, sizes)) == ours["metadata"]["total_size"]


def test_what_was_there_before_is_replaced(tmp_path):
    kind, config = MODELS["gpt2"]
    state = ours_of(kind, config).state_dict()
    shards = dict(one=None, many=4000, few=7000, again=None)
    for max_shard in shards.values():
        save_hugging_face(tmp_path, config, state, max_shard=max_shard)
        names = {file.name for file in tmp_path.iterdir()} - {"config.json"}
        listed = set(json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"].values()) if max_shard else set()
        assert names == (listed | {"model.safetensors.index.json"} if max_shard else {"model.safetensors"})
        assert all(np.array_equal(value, state[name]) for name, value in load_hugging_face(tmp_path)[1].items())


def test_a_disk_that_is_full_leaves_what_was_there(tmp_path, monkeypatch):
    kind, config = MODELS["gpt2"]
    state = ours_of(kind, config).state_dict()
    save_hugging_face(tmp_path, config, state)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    written = []

    def full(file, arrays, dtype):
        written.append(file)
        if len(written) == 3:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(writing, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        save_hugging_face(tmp_path, config, state, max_shard=4000)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_bfloat16_is_rounded_as_pytorch_rounds_it(tmp_path):
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 1 << 32, 200_000, dtype=np.uint32)
    ties = (rng.integers(0, 1 << 16, 1000, dtype=np.uint32) << 16) | 0x8000
    special = np.array([0, 1 << 31, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0xFFFFFFFF], np.uint32)
    array = np.concatenate([bits, ties, ties - 1, ties + 1, special]).view("f4")
    array = array[~(np.isfinite(array) & (np.abs(array) > 3.3e38))]                     # which bfloat16 cannot hold
    write_arrays(tmp_path, {"w": array}, dtype="bfloat16")
    found, want = load_file(tmp_path / "model.safetensors")["w"], torch.tensor(array).bfloat16()
    assert torch.equal(found.view(torch.int16)[~want.isnan()], want.view(torch.int16)[~want.isnan()])
    assert torch.equal(found.isnan(), want.isnan()) and want.isnan().any()
    again = np.asarray(open_arrays(tmp_path / "model.safetensors")["w"])
    np.testing.assert_array_equal(again, want.float().numpy())


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_arrays_of_any_layout_in_memory_or_on_disk_are_written_whole(tmp_path, dtype, monkeypatch):
    monkeypatch.setattr(writing, "_PIECE", 10)                                          # so that every array is cut in pieces
    rng = np.random.default_rng(0)
    wide = rng.standard_normal((7, 12)).astype("f4")
    save_file({"w": torch.tensor(wide), "half": torch.tensor(wide).bfloat16()}, tmp_path / "from.safetensors")
    disk = open_arrays(tmp_path / "from.safetensors")
    arrays = {
        "plain": wide, "turned": wide.T, "strided": wide[::2, ::3], "none": wide[:0], "number": np.array(2.5, "f4"), "line": wide[0],
        "long": wide.reshape(-1), "cube": wide.reshape(7, 3, 4), "on disk": disk["w"], "a part": disk["w"].T[2:5], "half": disk["half"][3],
        "joined": Joined([disk["w"], wide[:, :5]]), "stacked": Stacked([disk["half"], disk["half"]]),
    }
    assert write_arrays(tmp_path, arrays, dtype=dtype) == dtype
    found = load_file(tmp_path / "model.safetensors")
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        want = torch.tensor(np.array(array)).to(getattr(torch, dtype))
        assert found[name].dtype == want.dtype and torch.equal(found[name], want), name
    with safetensors.safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_the_dtype_of_the_arrays_is_kept_where_none_is_asked_for(tmp_path):
    save_file({"w": torch.ones(2, 3).bfloat16(), "v": torch.ones(3).bfloat16()}, tmp_path / "from.safetensors")
    disk = open_arrays(tmp_path / "from.safetensors")
    assert stored_as(disk["w"]) == stored_as(disk["w"].T) == stored_as(Joined([disk["v"], disk["v"]])) == "bfloat16"
    assert stored_as(Stacked([disk["v"], np.ones(3, "f4")])) == "float32"
    assert write_arrays(tmp_path, disk) == "bfloat16"
    with pytest.raises(ValueError, match=r"arrays of one dtype, or a dtype to write; got .*'bfloat16', 'float32'"):
        write_arrays(tmp_path, {"w": disk["w"], "v": np.ones(3, "f4")})


def test_files_are_compared_a_few_rows_at_a_time(tmp_path):
    one = np.arange(3_000_000, dtype="f4").reshape(1500, 2000)
    other = one.copy()
    assert same_values(one, other) and same_values(one, one.astype("f8")) and same_values(np.ones((0, 3)), np.ones((0, 3)))
    other[-1, -1] += 1
    assert not same_values(one, other) and not same_values(one, one[:-1]) and same_values(np.array(1.0), np.array(1))


def test_an_array_is_read_into_memory_of_any_layout_and_dtype(tmp_path):
    tensors = {"half": torch.randn(5, 6).bfloat16(), "full": torch.randn(5, 6)}
    save_file(tensors, tmp_path / "from.safetensors")
    for name, array in open_arrays(tmp_path / "from.safetensors").items():
        want = tensors[name].double().numpy()
        for target in (np.empty((5, 6), "f4"), np.empty((6, 5), "f4").T, np.empty((5, 12), "f4")[:, ::2], np.empty((5, 6))):
            read_into(target, array)
            np.testing.assert_array_equal(target, want)
        turned = np.empty((6, 5), "f4")
        read_into(turned, array.T)
        np.testing.assert_array_equal(turned, want.T)
        assert float(np.asarray(array[2, 3])) == want[2, 3]


def test_transformers_reads_shards_of_half_precision_in_its_own_dtype(tmp_path):
    path = save_hugging_face(tmp_path, LLAMA, ours_of("Llama", LLAMA).state_dict(), dtype="bfloat16", max_shard=2000)
    values = json.loads((path / "config.json").read_text())
    theirs = transformers.LlamaForCausalLM.from_pretrained(path, local_files_only=True, dtype="auto")
    assert theirs.dtype == torch.bfloat16 and values["dtype"] == values["torch_dtype"] == "bfloat16"
    assert torch.equal(theirs.lm_head.weight.float(), read_by_transformers(path)[0].lm_head.weight)
