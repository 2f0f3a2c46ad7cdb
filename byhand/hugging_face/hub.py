"""Models by their names on Hugging Face's hub, fetched by its own library where that is installed and the network allows it."""

import re
from pathlib import Path

from byhand.checks import fail
from byhand.hugging_face.files import CARRIED, INDEX, POOLING, WEIGHTS

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# The config, the weights that are read, what tokenizes, and what makes a sentence encoder of a BERT. Never a pickle.
_WANTED = ("config.json", WEIGHTS, "model-*.safetensors", INDEX, *CARRIED, f"{POOLING}/config.json")


def is_hub_name(where: str) -> bool:
    """Whether `where` can only be a name on the hub, ``org/name``: nothing on this disk lies where it would.

    Examples
    --------
    >>> is_hub_name("HuggingFaceTB/SmolLM2-135M"), is_hub_name("./some/where"), is_hub_name("gpt2")
    (True, False, False)
    """
    return _NAME.fullmatch(where) is not None and not Path(where).exists() and not Path(where).parent.exists()


def from_hub(who: str, name: str) -> Path:
    """The directory of the model of that name: the library's own cache, filled now if it was not before.

    Raises
    ------
    ValueError   if the library is not installed, the hub cannot be reached or has no such model, or that has no safetensors
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ValueError(f"{who} needs a directory, a preset, or for a name on the hub such as {name!r} the library huggingface_hub: "
                         "pip install huggingface_hub") from error
    try:
        path = Path(snapshot_download(name, allow_patterns=list(_WANTED)))
    except Exception as error:  # no network, offline mode, no such name, no leave to read it: the library's classes, and its HTTP client's
        lines = str(error).strip().splitlines() or [""]
        raise ValueError(f"{who} needs a directory, a preset, or the name of a model that the hub gives; {name!r} is not on this disk, and "
                         f"the hub did not give it: {type(error).__name__}: {lines[0]}") from error
    if not any(path.glob("*.safetensors")):
        fail(who, f"a model with safetensors under the name {name!r}",
             "one without; pickled weights are never fetched: transformers converts them with from_pretrained and save_pretrained")
    return path
