"""What a run leaves behind survives being killed; what is broken is named."""

import json
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from byhand.run_directory import RunDirectory, load_weights, save_weights, write_whole

WRITER = """
import sys
import numpy as np
from byhand.run_directory import save_weights
count = 0
while True:
    count += 1
    save_weights(sys.argv[1], {f"w{i}": np.full(100_000, count, dtype=np.float32) for i in range(4)}, step=count)
    print(count, flush=True)
"""


def test_a_writer_killed_at_any_moment_leaves_whole_weights(tmp_path):
    path, chance = tmp_path / "last.safetensors", random.Random(0)
    for saves in range(1, 13):
        with subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) as writer:
            assert [writer.stdout.readline() for _ in range(saves)][-1] == b"%d\n" % saves
            time.sleep(chance.uniform(0, 0.01))             # into the middle of the next
            writer.send_signal(signal.SIGKILL)
        weights = load_weights(path)
        values = {float(v) for array in weights.values() for v in np.unique(array)}
        assert len(weights) == 4 and len(values) == 1       # all of one save
        assert values.pop() >= saves
    save_weights(path, {"w": np.ones(2, dtype=np.float32)})  # what a killed writer left beside does not disturb the next
    assert load_weights(path)["w"].tolist() == [1, 1]
    assert [file.name for file in tmp_path.iterdir()] == ["last.safetensors"]


def test_a_failure_while_writing_keeps_the_old_file(tmp_path, monkeypatch):
    write_whole(tmp_path / "file", b"old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError):
        write_whole(tmp_path / "file", b"new and longer")
    assert (tmp_path / "file").read_bytes() == b"old"


def test_weights_come_back_as_they_were(tmp_path):
    state = {
        "matrix": np.arange(6, dtype=np.float32).reshape(2, 3).T,       # not contiguous
        "double": np.array([1e-300, np.nan]),
        "empty": np.zeros((0, 3), dtype=np.float32),
    }
    back = load_weights(save_weights(tmp_path / "w.safetensors", state, step=3, loss=1.5))
    for name, array in state.items():
        assert back[name].dtype == array.dtype and back[name].shape == array.shape
        np.testing.assert_array_equal(back[name], array)
    assert b'"step":"3"' in (tmp_path / "w.safetensors").read_bytes()


@pytest.mark.parametrize("keep", [0, 5, 20, 150, 300])
def test_weights_cut_short_are_refused(tmp_path, keep):
    path = save_weights(tmp_path / "w.safetensors", {"a": np.ones(50, dtype=np.float32), "b": np.ones(5)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"w\.safetensors is cut short") as refused:
        load_weights(path)
    assert str(keep) in str(refused.value)


@pytest.mark.parametrize("content", [b"PK\x03\x04" + b"x" * 100, (7).to_bytes(8, "little") + b"nothing", (2).to_bytes(8, "little") + b"[]"])
def test_what_is_no_weights_file_is_refused(tmp_path, content):
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="is something else"):
        load_weights(tmp_path / "w.safetensors")


def test_bytes_too_many_are_refused(tmp_path):
    path = save_weights(tmp_path / "w.safetensors", {"a": np.ones(50, dtype=np.float32)})
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(ValueError, match="is damaged"):
        load_weights(path)


def test_missing_weights_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"nothing\.safetensors: No such file"):
        load_weights(tmp_path / "nothing.safetensors")
    with pytest.raises(ValueError, match="Is a directory"):
        load_weights(tmp_path)


def test_directories_are_made_and_never_shared(tmp_path):
    with RunDirectory("name", root=tmp_path / "runs") as one, RunDirectory("name", root=tmp_path / "runs") as two:
        assert one.path != two.path and one.path.name.startswith("name-")
    with RunDirectory("name", out=tmp_path / "a" / "b") as run:
        assert run.path == tmp_path / "a" / "b"
    with pytest.raises(ValueError, match="already holds one"):
        RunDirectory("name", out=tmp_path / "a" / "b")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"can write to.*file"):
        RunDirectory("name", out=tmp_path / "file")


def test_metrics_are_on_the_disk_line_by_line(tmp_path):
    with RunDirectory("name", out=tmp_path) as run:
        run.describe("config", {"lr": 0.1, "text": None})
        run.log(step=1, loss=2.5)
        assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [{"step": 1, "loss": 2.5}]
        run.log(step=2, loss=float("nan"), validation=None)
        assert json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[1]) == {"step": 2, "loss": None, "validation": None}
    assert json.loads((tmp_path / "config.json").read_text()) == {"lr": 0.1, "text": None}
