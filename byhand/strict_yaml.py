"""YAML as configurations need it: what the format would take in silently and wrongly is refused, with its line."""

import functools
import math
import re
from collections.abc import Hashable
from typing import Any

_OCTAL = re.compile(r"[-+]?0[0-7_]+")
_BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")


class YamlError(ValueError):
    """Text that is no YAML, or YAML that means something else than it seems to."""


def load(text: str) -> Any:
    """The value of a YAML document; None if it is empty.

    Refused are a key that is given twice, a number that YAML 1.1 takes for text (1e-4) or for another number (010 for 8, 1:30 for 90),
    a tag other than YAML's own, and more than one document.

    Raises
    ------
    YamlError    a ValueError, with the line
    ImportError  if PyYAML is not installed

    Examples
    --------
    >>> load("lr: 1.0e-4\\ntargets: [q_proj, v_proj]")
    {'lr': 0.0001, 'targets': ['q_proj', 'v_proj']}
    >>> try:
    ...     load("steps: 10\\nlr: 1e-4")
    ... except YamlError as error:
    ...     print(error)
    line 2: YAML takes 1e-4 for text; write 1.0e-4, or '1e-4' if it is text
    """
    import yaml

    try:
        return yaml.load(text, _loader())
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        where = f"line {mark.line + 1}: " if mark is not None else ""
        raise YamlError(f"{where}{problem or error}") from error
    except RecursionError as error:
        raise YamlError("lists or maps that stand too deep in one another") from error


@functools.cache
def _loader() -> Any:
    import yaml

    class Strict(yaml.SafeLoader):
        """PyYAML's safe loader, with an eye on keys and scalars."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
            first: dict[Hashable, int] = {}
            for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
                # `<<` brings in the keys of another map, which those given here may overrule; of several: `<<: [*one, *other]`
                merge, line = key.tag.endswith(":merge"), key.start_mark.line + 1
                name = "<<" if merge else self.construct_object(key, deep=True)
                if isinstance(name, Hashable):
                    if name in first:
                        raise YamlError(f"line {line}: {name!r} is given a second time, first in line {first[name]}")
                    first[name] = line
            return super().construct_mapping(node, deep)

        def construct_object(self, node: Any, deep: bool = False) -> Any:
            if isinstance(node, yaml.ScalarNode) and node.style is None:
                _scalar(node.value, node.tag.rpartition(":")[2], node.start_mark.line + 1)
            try:
                return super().construct_object(node, deep)
            except (yaml.YAMLError, YamlError, RecursionError):
                raise
            except Exception as error:     # `!!int x`, the 40th of May: what the safe loader lets through to Python's own types
                shown, kind = str(node.value)[:40], node.tag.rpartition(":")[2]
                raise YamlError(f"line {node.start_mark.line + 1}: {shown!r} cannot be read as YAML's {kind}") from error

    return Strict


def _scalar(text: str, kind: str, line: int) -> None:
    """Refuse an unquoted word that looks like one number and is another, or none."""
    if kind == "str" and (number := _float(text)) is not None:
        raise YamlError(f"line {line}: YAML takes {text} for text; write {_written(text, number)}, or '{text}' if it is text")
    if kind == "int" and _OCTAL.fullmatch(text):
        value = int(text.replace("_", ""), 8)
        raise YamlError(f"line {line}: YAML takes {text} for {value}, a number to base 8; write {value}, or what is meant")
    if kind == "float" and "inf" not in text.lower() and math.isinf(_float(text) or 0):
        raise YamlError(f"line {line}: YAML takes {text} for infinity, because no float is so large; write .inf if that is meant")
    if kind in ("int", "float") and _BASE_60.fullmatch(text):
        raise YamlError(f"line {line}: YAML takes {text} for a number to base 60; write '{text}' if it is text")


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _written(text: str, number: float) -> str:
    """The number as YAML 1.1 has it: with no 0 before an integer, and a point, and a sign in the exponent, if it is none."""
    if not math.isfinite(number):
        return ".nan" if math.isnan(number) else ".inf" if number > 0 else "-.inf"
    if text.lstrip("+-").replace("_", "").isdecimal():      # 08, which is no number to base 8
        return str(int(text))
    mantissa, e, exponent = text.lower().replace("_", "").partition("e")
    mantissa = mantissa if "." in mantissa else f"{mantissa}.0"
    return f"{mantissa}{e}{exponent if not e or exponent[0] in '+-' else f'+{exponent}'}"
