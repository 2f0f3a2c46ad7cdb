"""A config from a dictionary, as files and checkpoints hold it."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any

from byhand.checks import demand


def from_dict(cls: type, values: Mapping[str, Any]) -> Any:
    """The frozen config of class `cls` with these values; a ValueError names an unknown key, and the one meant, or a missing one."""
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for key in values:
        if key not in fields:
            near = difflib.get_close_matches(str(key), fields, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else f", which is none of {', '.join(fields)}"
            raise ValueError(f"{cls.__name__} needs known keys; got {key!r}{hint}")
    missing = [name for name, field in fields.items() if field.default is dataclasses.MISSING and name not in values]
    demand(cls.__name__, not missing, f"a value for {', '.join(missing)}", keys=list(values))
    return cls(**values)
