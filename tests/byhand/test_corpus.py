"""Text to train on: the same files make the same bytes, and what is missing or empty is said."""

import os

import numpy as np
import pytest

from byhand import corpus


def test_the_standard_library_is_a_large_and_repeatable_text():
    one, two = corpus.load(), corpus.load()
    assert one.digest == two.digest and np.array_equal(one.tokens, two.tokens)
    assert len(one.tokens) > 3_000_000 and one.files > 200
    text = one.tokens.tobytes()
    assert b"class OrderedDict(dict)" in text                        # collections/__init__.py
    assert b"site-packages" not in one.name.encode() and b"import numpy as np\n" not in text[:1_000_000]


def test_files_are_joined_by_path_and_end_with_a_newline(tmp_path):
    (tmp_path / "b").mkdir()
    for name, text in {"b/x.py": "bx", "a.py": "a\n", "c.txt": "", ".hidden": "no", "b/.git": "no"}.items():
        (tmp_path / name).write_text(text)
    assert corpus.load(tmp_path).tokens.tobytes() == b"a\nbx\n"
    assert corpus.load(tmp_path / "b" / "x.py").tokens.tobytes() == b"bx\n"


@pytest.mark.parametrize("make", ["missing", "empty file", "empty directory", "directory of empty files", "device"])
def test_no_text_is_refused_by_name(tmp_path, make):
    path = tmp_path / "text"
    if make == "empty file":
        path.touch()
    elif make == "empty directory":
        path.mkdir()
    elif make == "directory of empty files":
        path.mkdir()
        (path / "a").touch()
    elif make == "device":
        path = os.devnull
    with pytest.raises(ValueError, match=r"corpus\.load needs") as refused:
        corpus.load(path)
    assert str(path) in str(refused.value)


def test_no_name_is_not_the_directory_that_one_stands_in(tmp_path, monkeypatch):
    (tmp_path / "x").write_text("text")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"corpus\.load needs a file or a directory that exists.*got path ''"):
        corpus.load("")
    assert corpus.load(".").files == 1


def test_a_directory_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    (tmp_path / "secret").mkdir()
    (tmp_path / "x").write_text("text")
    scandir = os.scandir

    def refusing(path):
        if os.fspath(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(ValueError, match="secret: Permission denied"):
        corpus.load(tmp_path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_named(tmp_path):
    (tmp_path / "secret").write_text("text")
    (tmp_path / "secret").chmod(0)
    with pytest.raises(ValueError, match="secret: Permission denied"):
        corpus.load(tmp_path)


def test_split_keeps_the_end_apart():
    train, validation = corpus.split(np.arange(100, dtype=np.uint8), validation=0.1)
    assert train.tolist() == list(range(90)) and validation.tolist() == list(range(90, 100))
    assert len(corpus.split(np.arange(100, dtype=np.uint8), validation=0)[1]) == 0
    with pytest.raises(ValueError, match="validation in"):
        corpus.split(np.arange(100, dtype=np.uint8), validation=1.5)


def test_batches_follow_from_seed_and_step_alone():
    tokens = np.arange(251, dtype=np.uint8)

    def draw(seed, step):
        return corpus.draw(tokens, batch=8, length=5, seed=seed, step=step)

    ids, targets = draw(1, 2)
    assert ids.shape == targets.shape == (8, 5) and ids.dtype == np.int64
    assert np.array_equal(ids + 1, targets)                          # one token later
    assert ids[:, 0].tolist() == [208, 132, 114, 77, 146, 241, 42, 168]  # the same on every machine
    assert np.array_equal(draw(1, 2)[0], ids)
    assert not np.array_equal(draw(2, 1)[0], ids) and not np.array_equal(draw(1, 3)[0], ids)


def test_every_window_can_be_drawn_and_none_leaves_the_text():
    tokens = np.arange(7, dtype=np.uint8)
    starts = {int(corpus.draw(tokens, batch=1, length=5, seed=0, step=step)[0][0, 0]) for step in range(60)}
    assert starts == {0, 1}
    ids, targets = corpus.draw(tokens[:6], batch=3, length=5, seed=0, step=0)
    assert ids.tolist() == [[0, 1, 2, 3, 4]] * 3 and targets[0].tolist() == [1, 2, 3, 4, 5]


def test_a_text_shorter_than_a_window_is_refused():
    with pytest.raises(ValueError, match="more than 5 bytes"):
        corpus.draw(np.arange(5, dtype=np.uint8), batch=1, length=5, seed=0, step=0)
    with pytest.raises(ValueError, match="batch as an integer >= 1"):
        corpus.draw(np.arange(50, dtype=np.uint8), batch=0, length=5, seed=0, step=0)


def test_validation_windows_are_spread_from_the_first_to_the_last():
    tokens = np.arange(101, dtype=np.uint8)
    batches = corpus.spread(tokens, batch=2, length=4, count=3)
    assert [ids[:, 0].tolist() for ids, _ in batches] == [[0, 19], [38, 57], [76, 96]]


def test_texts_by_name_are_the_same_everywhere_and_paths_still_win_with_their_directory(tmp_path, monkeypatch):
    assert corpus.load("library").digest == corpus.load().digest
    topics = corpus.load("topics")
    assert topics.digest == corpus.load("topics").digest and len(topics.tokens) > 300_000 and topics.files > 50
    text = topics.tokens.tobytes()
    assert text.startswith(b'The "assert" statement\n') and b"\n\n\n\n\n" not in text[:1000]
    operations = corpus.load("list-operations")
    assert 950_000 < len(operations.tokens) < 1_050_000
    assert operations.digest == "1e3fdd9bab510c3a2fa5a84eb1d89bab616242aa7eae91f91396cff39234de79"  # everywhere

    monkeypatch.chdir(tmp_path)
    (tmp_path / "topics").write_text("my own")
    assert corpus.load("./topics").tokens.tobytes() == corpus.load(tmp_path / "topics").tokens.tobytes() == b"my own\n"
    assert corpus.load("topics").digest == topics.digest
    with pytest.raises(ValueError, match="or one of library, topics, list-operations; got path 'topic'"):
        corpus.load("topic")
