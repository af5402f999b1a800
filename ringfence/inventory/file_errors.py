"""What is wrong with a file of an inventory, by item and field, in words of who wrote it."""

import re
from typing import Any

import msgspec

from ringfence.model.workload import ItemKind, ServiceType, TrafficPolicy

_SAID = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<path>.*)`)?", re.DOTALL)
_STEP = re.compile(r"\[(?P<at>\d+|\.\.\.)\]|(?P<name>[^.\[]+)")
_CHOICES = {"kind": ItemKind, "type": ServiceType, "external_traffic_policy": TrafficPolicy}
_WORDS = {
    "object": "a mapping",
    "array": "a list",
    "str": "a text",
    "int": "a whole number",
    "bool": "true or false",
    "null": "nothing",
}


def described(values: Any, error: msgspec.ValidationError) -> str:
    """A complaint about decoded values as `items[0] (NAME): FIELD: expected …, found …`."""
    said = _SAID.fullmatch(str(error))
    assert said, "every text matches"
    path, found, name = _found(values, said["path"] or "")
    where = "".join(f"{step}: " for step in path)
    if missing := re.search(r"missing required field `(.*)`", said["what"]):
        return f"{where}expected a field {missing[1]}"
    expected = _expected(said["what"], name, whole=found is values or len(path) == 1)
    where = where or "not an inventory as `ringfence inventory export` writes it: "
    return f"{where}expected {expected}, found {_shown(found)}"


def _found(values: Any, path: str) -> tuple[list[str], Any, str]:
    """The steps to a value as they are written, the value, and its field's name."""
    steps: list[str] = []
    found, name = values, ""
    for step in _STEP.finditer(path):
        at = step["at"]
        if at == "...":  # msgspec does not say which key of a mapping
            name = next((key for key, value in found.items() if _is_odd(value)), "")
            found = found.get(name)
            steps[-1] += f".{name}"
        elif at:
            found = found[int(at)]
            steps.append(f"{steps.pop() if steps else 'items'}[{at}]")
            told = found.get("name") if len(steps) == 1 and isinstance(found, dict) else None
            if isinstance(told, str) and told.isprintable():
                steps[0] += f" ({told[:80]})"
        else:
            name = step["name"]
            found = found.get(name)
            steps.append(name)
    return steps, found, name


def _is_odd(values: Any) -> bool:
    """Whether this is no value of a label."""
    listed = values if isinstance(values, list) else [values]
    return not all(isinstance(one, str) for one in listed)


def _expected(what: str, name: str, *, whole: bool) -> str:
    if what.startswith("Invalid enum value"):
        choices = ("Inventory",) if whole else tuple(_CHOICES.get(name, ()))
        return f"one of {', '.join(choices)}" if len(choices) > 1 else choices[0]
    told = re.match(r"Expected `(?P<kinds>[^`]*)`(?P<bound> [<>]= \d+)?", what)
    if not told:
        return what
    kinds = " or ".join(_WORDS.get(one, one) for one in told["kinds"].split(" | ") if one != "null")
    return f"{kinds} from 0 to 65535" if told["bound"] else kinds


def _shown(value: Any) -> str:
    return "nothing" if value is None else repr(value)[:80]
