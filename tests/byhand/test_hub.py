"""Names on the hub: what is asked of its library, and what is said where there is none, no network or no such model; nothing is fetched."""

import sys
import types

import pytest

from byhand.finetuning.base import open_base
from byhand.hugging_face import hub
from byhand.hugging_face.directory import save_hugging_face
from byhand.model_source import open_model
from numpy_impl.models.llama import Llama
from tests.byhand.hugging_face_models import LLAMA

NAME = "byhand-tests/no-such-model"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """No directory of this name is near."""
    monkeypatch.chdir(tmp_path)


def library(monkeypatch, download):
    """In the place of huggingface_hub; what it was asked for."""
    asked = []

    def snapshot_download(name, **options):
        asked.append((name, options))
        return download(name)

    module = types.ModuleType("huggingface_hub")
    module.snapshot_download = snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    return asked


@pytest.mark.parametrize("opens", [open_model, open_base])
def test_a_name_is_fetched_without_anything_that_is_not_read(tmp_path, monkeypatch, opens):
    fetched = save_hugging_face(tmp_path / "cache" / "models--x" / "snapshots" / "1", LLAMA, Llama(LLAMA).state_dict())
    asked = library(monkeypatch, lambda name: str(fetched))
    found = opens(NAME)
    assert (found.model.config if opens is open_model else found.config) == LLAMA and found.path == fetched
    ((name, options),) = asked
    assert name == NAME and options.keys() == {"allow_patterns"}
    wanted = options["allow_patterns"]
    assert {"config.json", "model.safetensors", "model-*.safetensors", "tokenizer.json", "generation_config.json"} <= set(wanted)
    assert not any(pattern.endswith(("*", ".bin", ".pt", ".pkl", ".py", ".h5", ".msgpack")) for pattern in wanted)


@pytest.mark.parametrize("opens", [open_model, open_base])
def test_without_the_library_it_is_named(monkeypatch, opens):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=rf"{opens.__name__} needs .*'{NAME}' the library huggingface_hub: pip install"):
        opens(NAME)


@pytest.mark.parametrize("opens", [open_model, open_base])
@pytest.mark.parametrize("error", [ConnectionError("offline mode is on\nmore"), OSError("401"), RuntimeError("odd")])
def test_whatever_the_library_says_is_passed_on(monkeypatch, opens, error):
    def fail(_):
        raise error

    library(monkeypatch, fail)
    said = str(error).splitlines()[0]
    with pytest.raises(ValueError, match=rf"'{NAME}' is not on this disk, and the hub did not give it: {type(error).__name__}: {said}$"):
        opens(NAME)


def test_offline_the_real_library_says_so(monkeypatch, tmp_path):
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(ValueError, match=f"'{NAME}' is not on this disk, and the hub did not give it: "):
        open_model(NAME)


def test_a_model_without_safetensors_is_refused(tmp_path, monkeypatch):
    (tmp_path / "cache").mkdir()
    library(monkeypatch, lambda name: str(tmp_path / "cache"))
    with pytest.raises(ValueError, match=rf"a model with safetensors under the name '{NAME}'; got one without; pickled weights are never"):
        open_model(NAME)


@pytest.mark.parametrize("where", ["llama-nono", "a/b/c", "./a/b", "../a/b", "/a/b", "a/", "runs/nothing-there", "a b/c"])
def test_what_is_no_name_is_not_asked_for(tmp_path, monkeypatch, where):
    asked = library(monkeypatch, lambda name: 1 / 0)
    (tmp_path / "runs").mkdir()
    assert not hub.is_hub_name(where)
    for opens in (open_model, open_base):
        with pytest.raises(ValueError, match=f"{opens.__name__} needs a"):
            opens(where)
    assert asked == []
