"""Defaults, overruled by a file, overruled by the command line; what is unknown or out of range is named."""

import builtins
import json

import pytest

from byhand.run_config import resolve as resolve_any
from byhand.training_config import TrainingConfig


def resolve(file=None, **options):
    return resolve_any(TrainingConfig, file, **options)


def test_each_source_overrules_the_one_before(tmp_path):
    file = tmp_path / "run.json"
    file.write_text(json.dumps({"steps": 7, "lr": 1, "recompute": True}))
    config = resolve(file, steps=9, seed=None)
    assert (config.steps, config.lr, config.recompute, config.batch) == (9, 1.0, True, TrainingConfig().batch)
    assert isinstance(config.lr, float)
    assert resolve(file, recompute=False).recompute is False   # False is a value, None is not given


def test_a_resolved_configuration_resolves_to_itself(tmp_path):
    config = resolve(steps=3, text="x", dropout=0.0)
    (tmp_path / "config.json").write_text(json.dumps(config.as_dict()))
    assert resolve(tmp_path / "config.json") == config


def test_yaml_is_read_where_pyyaml_is_installed(tmp_path, monkeypatch):
    pytest.importorskip("yaml")
    file = tmp_path / "run.yaml"
    file.write_text("steps: 5  # few\ndropout: 0\n")
    assert (resolve(file).steps, resolve(file).dropout) == (5, 0.0)
    file.write_text("")
    assert resolve(file) == TrainingConfig()
    file.write_text("steps: [5\n")
    with pytest.raises(ValueError, match="needs YAML in"):
        resolve(file)

    real = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", lambda name, *rest: real("no_such_module" if name == "yaml" else name, *rest))
    with pytest.raises(ValueError, match="pip install pyyaml"):
        resolve(file)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"step": 3}, "unknown option 'step'.*did you mean 'steps'"),
        ({"zzz": 3}, "unknown option 'zzz'; known are backend"),
        ({"steps": "3"}, "steps as an integer >= 1; got steps='3'"),
        ({"steps": 3.5}, "steps as an integer"),
        ({"steps": True}, "steps as an integer"),
        ({"recompute": 1}, "recompute as true or false"),
        ({"lr": "high"}, "lr > 0 and finite; got lr='high'"),
        ({"dropout": 1.5}, r"dropout in \[0, 1\]; got dropout=1.5"),
        ({"dtype": "float16"}, "dtype from 'float32', 'float64'; got dtype='float16'"),
        ({"backend": "nunpy"}, "did you mean 'numpy'"),
        ({"device": "cuda"}, "device 'cpu' for the numpy backend"),
        ({"accumulate": 33}, r"accumulate <= batch \(32\)"),
        ({"threads": 0}, "threads as an integer >= 1"),
        ({"seed": 1 << 64}, "seed < 2\\^64"),
        ({"text": 3}, "text as text; got text 3"),
        ({"text": False}, "text as text .yes, no, on and off mean true and false in YAML, unless they stand in quotes.; got text False"),
        ({"lr": 10**400}, "lr as a number that a float can hold"),
        ({"prompt": ""}, "a prompt of at least one byte"),
        ({"name": "a/b"}, "a name without slashes"),
        ([1], "names and values in"),
    ],
)
def test_bad_options_are_named(tmp_path, content, complaint):
    (tmp_path / "run.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=complaint):
        resolve(tmp_path / "run.json")


def test_bad_files_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"missing\.json: No such file"):
        resolve(tmp_path / "missing.json")
    (tmp_path / "run.toml").touch()
    with pytest.raises(ValueError, match=r"a configuration in a \.json, \.yaml or \.yml file; got path '.*run\.toml'"):
        resolve(tmp_path / "run.toml")
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(ValueError, match=r"needs JSON in .*run\.json; .*line 1"):
        resolve(tmp_path / "run.json")
    for content, complaint in (('{"steps": 1, "steps": 2}', "'steps' is given a second time"), ("[" * 100_000, "recursion"),
                               ('{"steps": ' + "9" * 5000 + "}", "4300 digits")):
        (tmp_path / "run.json").write_text(content)
        with pytest.raises(ValueError, match=f"needs JSON in .*{complaint}"):
            resolve(tmp_path / "run.json")
    (tmp_path / "run.JSON").write_text('\ufeff{"steps": 7}', encoding="utf-8")     # as some editors write it
    assert resolve(tmp_path / "run.JSON").steps == 7
    (tmp_path / "run.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="a configuration it can read"):
        resolve(tmp_path / "run.json")


@pytest.mark.parametrize(("text", "complaint"), [
    ("steps: 5\nlr: 1e-4\n", "needs YAML in .*run.yaml; line 2: YAML takes 1e-4 for text; write 1.0e-4"),
    ("steps: 5\nsteps: 6\n", "line 2: 'steps' is given a second time"),
    ("false\n", "names and values in"),
])
def test_yaml_that_means_something_else_is_refused(tmp_path, text, complaint):
    pytest.importorskip("yaml")
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=complaint):
        resolve(file)
