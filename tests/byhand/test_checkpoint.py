"""A checkpoint is whole or not there, whatever happens while it is written and after."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from byhand import checkpoint

DTYPES = ["bool", "uint8", "int8", "uint16", "int32", "int64", "uint64", "float16", "float32", "float64"]


def arrays(step=0):
    rng = np.random.default_rng(step)
    return {
        "weights": {name: (100 * rng.standard_normal((3, 5))).astype(np.int64).astype(name) for name in DTYPES},
        "optimizer": {"m.w": rng.standard_normal(7), "empty": np.zeros((0, 4), "float32"), "scalar": np.array(2.5, "float32"),
                      "turned": np.arange(6.0).reshape(2, 3).T},
    }


VALUES = {"progress": {"seed": 2**64 - 1, "loss": 0.1, "scale": float("inf"), "rows": [1, [2, None]], "text": "π\udc80"},
          "config": {"lr": 1e-4}}


def same(got, want):
    assert got.keys() == want.keys()
    for file in want:
        assert got[file].keys() == want[file].keys()
        for name, array in want[file].items():
            loaded = got[file][name]
            assert loaded.dtype == array.dtype and loaded.shape == array.shape
            assert np.ascontiguousarray(loaded).tobytes() == np.ascontiguousarray(array).tobytes()


def test_what_is_saved_comes_back_bit_by_bit(tmp_path):
    path = checkpoint.save(tmp_path / "new" / "run", 7, arrays=arrays(), values=VALUES)
    assert path.name == "step-000007" and checkpoint.latest(tmp_path / "new" / "run") == path
    loaded = checkpoint.load(path)
    assert loaded.step == 7 and loaded.values == VALUES and loaded.path == path
    same(loaded.arrays, arrays())
    loaded.arrays["weights"]["float32"][0] = 1                            # a copy, not the file
    assert checkpoint.load(checkpoint.save(tmp_path / "bare", 0, arrays={})).arrays == {}


def test_only_the_newest_stay_and_steps_are_counted_not_spelt(tmp_path):
    for step in (5, 999_999, 1_000_000):
        checkpoint.save(tmp_path, step, arrays=arrays(step), keep=2)
    assert sorted(os.listdir(tmp_path)) == ["step-1000000", "step-999999"]
    assert checkpoint.load(checkpoint.latest(tmp_path)).step == 1_000_000
    checkpoint.save(tmp_path, 1_000_001, arrays={}, keep=1)
    assert os.listdir(tmp_path) == ["step-1000001"]


def test_what_was_interrupted_is_passed_over_and_swept(tmp_path):
    path = checkpoint.save(tmp_path, 1, arrays=arrays())
    shutil.copytree(path, tmp_path / ".step-000002.part")
    shutil.copytree(path, tmp_path / ".step-000000.gone")
    (tmp_path / "notes").mkdir()
    assert checkpoint.latest(tmp_path) == path
    assert checkpoint.latest(tmp_path / "none") is None and checkpoint.latest(tmp_path / "notes") is None
    checkpoint.save(tmp_path, 2, arrays={})
    assert sorted(os.listdir(tmp_path)) == ["notes", "step-000001", "step-000002"]


def test_a_file_cut_at_any_byte_or_with_any_bit_turned_is_named(tmp_path):
    small = {"w": {"a": np.arange(4, dtype="uint8")}}
    path = checkpoint.save(tmp_path, 3, arrays=small, values={"v": {"a": 1}})
    rng = random.Random(0)
    for name in sorted(os.listdir(path)):
        whole = (path / name).read_bytes()
        cuts = [whole[:size] for size in range(len(whole))] + [whole + b"\0"]
        bits = sorted(rng.sample(range(8 * len(whole)), min(200, 8 * len(whole))))
        turned = [bytes([*whole[: bit // 8], whole[bit // 8] ^ (1 << bit % 8), *whole[bit // 8 + 1 :]]) for bit in bits]
        for content in cuts + turned:
            (path / name).write_bytes(content)
            with pytest.raises(ValueError, match=r"step-000003") as refused:
                checkpoint.load(path)
            assert "as it was written" in str(refused.value) or "needs" in str(refused.value)
        with pytest.raises(ValueError, match=r"remove .*step-000003 to begin anew"):
            checkpoint.latest(tmp_path)
        (path / name).write_bytes(whole)
    same(checkpoint.load(path).arrays, small)


def test_missing_and_foreign_files_are_named(tmp_path):
    checkpoint.save(tmp_path, 1, arrays=arrays())
    path = checkpoint.save(tmp_path, 2, arrays=arrays(), values=VALUES)
    for name in sorted(os.listdir(path)):
        os.rename(path / name, tmp_path / "aside")
        with pytest.raises(ValueError, match=rf"{name}.*No such file"):
            checkpoint.load(path)
        with pytest.raises(ValueError, match=r"remove .*step-000002 to go on from step-000001"):
            checkpoint.latest(tmp_path)
        os.rename(tmp_path / "aside", path / name)
    (path / "more.bin").touch()
    with pytest.raises(ValueError, match=r"nothing in .* but what its manifest\.json lists; got more\.bin"):
        checkpoint.load(path)
    (path / "more.bin").unlink()
    (path / ".DS_Store").touch()                                          # what a file manager leaves behind
    checkpoint.load(path)
    os.rename(path, tmp_path / "step-000009")
    with pytest.raises(ValueError, match="the step of its name; got step 2"):
        checkpoint.latest(tmp_path)
    (tmp_path / "step-000010").touch()
    with pytest.raises(ValueError, match=r"step-000010"):
        checkpoint.latest(tmp_path)
    with pytest.raises(ValueError, match="No such file"):
        checkpoint.load(tmp_path / "nothing")


def test_readers_beside_a_run_get_a_whole_checkpoint_or_a_named_error(tmp_path, monkeypatch):
    """The newest one when a reader looked may be gone when it reads: `latest` looks again, `load` says which."""
    first = checkpoint.save(tmp_path, 1, arrays=arrays(1))
    verify, seen = checkpoint.verify, []

    def overtaken(who, path, files):
        seen.append(path.name)
        if len(seen) == 1:
            verify(who, path, files)
            checkpoint.save(tmp_path, 2, arrays=arrays(2), keep=1)       # removes what has just been verified
            return
        verify(who, path, files)

    monkeypatch.setattr(checkpoint, "verify", overtaken)
    assert checkpoint.latest(tmp_path).name == "step-000002"
    assert seen == ["step-000001", "step-000002"]
    seen.clear()
    (tmp_path / "step-000002").rename(first)
    shutil.rmtree(first)
    first = checkpoint.save(tmp_path, 1, arrays=arrays(1))
    with pytest.raises(ValueError, match=r"checkpoint\.load needs .*step-000001: No such file"):
        checkpoint.load(first)


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        (dict(step=-1), "step as an integer >= 0"),
        (dict(step=1), "a step after 1, the newest"),
        (dict(keep=0), "keep as an integer >= 1"),
        (dict(arrays={"w": np.ones(2)}), "w as a dict of arrays"),
        (dict(arrays={"w": {"a": [1.0]}}), r"arrays of bool.*by name; got a \[1.0\]"),
        (dict(arrays={"w": {"a": np.array([None])}}), "got a object"),
        (dict(arrays={"w": {"a": np.ones(2, "complex128")}}), "got a complex128"),
        (dict(arrays={"../w": {}}), "names of letters"),
        (dict(arrays={5: {}}), "names of letters"),
        (dict(arrays=None), "arrays as a dict"),
        (dict(arrays={"w": {"__metadata__": np.ones(2)}}), "not __metadata__, which the format keeps for itself"),
        (dict(arrays={"w": {"\ud800": np.ones(2)}}), "names that UTF-8 can hold"),
        (dict(arrays={"w": {7: np.ones(2)}}), "names that UTF-8 can hold"),
        (dict(values={"manifest": {}}), "another name for values"),
        (dict(values=[1]), "values as a dict"),
        (dict(values={"v": {1: 2}}), "text for keys"),
        (dict(values={"v": np.ones(2)}), "what JSON can hold"),
    ],
)
def test_what_cannot_be_saved_changes_nothing(tmp_path, wrong, complaint):
    path = checkpoint.save(tmp_path, 1, arrays=arrays())
    with pytest.raises(ValueError, match=complaint):
        checkpoint.save(tmp_path, **(dict(step=2, arrays=arrays()) | wrong))
    assert os.listdir(tmp_path) == [path.name]
    checkpoint.load(path)


def test_a_disk_that_refuses_is_named_and_leaves_the_last(tmp_path, monkeypatch):
    path = checkpoint.save(tmp_path, 1, arrays=arrays())

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match="No space left"):
        checkpoint.save(tmp_path, 2, arrays=arrays())
    assert os.listdir(tmp_path) == [path.name]
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="a directory it can use"):
        checkpoint.save(tmp_path / "file", 1, arrays={})


class Killed(BaseException):
    """The process ends here."""


class Mortal:
    """Lets so many calls of functions through, and none after them."""

    def __init__(self, calls):
        self.left = calls

    def wrap(self, function):
        def call(*given, **options):
            self.left -= 1
            if self.left < 0:
                raise Killed
            return function(*given, **options)

        return call


def test_a_crash_at_any_call_to_the_system_leaves_the_newest_whole(tmp_path, monkeypatch):
    """Every fsync, rename, mkdir and removal in turn is the last one; nothing after it runs, no cleaning up either."""
    calls = [(os, "fsync"), (os, "rename"), (os, "replace"), (os, "mkdir"), (os, "unlink"), (os, "rmdir"), (shutil, "rmtree")]
    ended = 0
    for last in range(1000):
        run = tmp_path / str(last)
        for step in (1, 2):
            checkpoint.save(run, step, arrays=arrays(step), values={"v": step})
        mortal = Mortal(last)
        with monkeypatch.context() as patch:
            for owner, name in calls:
                patch.setattr(owner, name, mortal.wrap(getattr(owner, name)))
            try:
                checkpoint.save(run, 3, arrays=arrays(3), values={"v": 3})
                ended += 1
            except Killed:
                pass
        loaded = checkpoint.load(checkpoint.latest(run))
        assert loaded.step in (2, 3) and loaded.values == {"v": loaded.step}
        same(loaded.arrays, arrays(loaded.step))
        checkpoint.save(run, 4, arrays=arrays(4), values={"v": 4})       # and the run goes on from there
        assert len(os.listdir(run)) == 2 or last == 0
        if ended:
            break
    assert ended and last > 10


WRITER = """
import sys
import numpy as np
from byhand import checkpoint
print("ready", flush=True)
for step in range(1, 10**6):
    content = np.full(50_000, step, dtype="float32")
    checkpoint.save(sys.argv[1], step, arrays={"a": {"x": content}, "b": {"y": content + 1}}, values={"v": {"step": step}})
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_twenty_kills_leave_the_newest_whole(tmp_path):
    rng = random.Random(1)
    seen = set()
    for kill in range(20):
        run = tmp_path / str(kill)
        process = subprocess.Popen([sys.executable, "-c", WRITER, str(run)], stdout=subprocess.PIPE)
        process.stdout.readline()
        time.sleep(0.3 * rng.random())
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        path = checkpoint.latest(run)
        if path is None:                                                  # killed before the first was finished
            continue
        loaded = checkpoint.load(path)
        assert np.array_equal(loaded.arrays["a"]["x"], np.full(50_000, loaded.step, dtype="float32"))
        assert np.array_equal(loaded.arrays["b"]["y"], loaded.arrays["a"]["x"] + 1) and loaded.values == {"v": {"step": loaded.step}}
        left = os.listdir(run)
        assert sum(name.startswith("step-") for name in left) <= 3
        seen.add(loaded.step)
        json.loads((path / "manifest.json").read_text())
    assert len(seen) > 3
