"""The one way in which documents are written as YAML."""

from collections.abc import Iterable, Mapping
from typing import Any

import yaml

from ringfence.policy.fields import TAG


class Inline(dict[str, Any]):
    """A mapping that is written on one line."""


class Flow(list[Any]):
    """A list that is written on one line."""


_NO_FOLDING = 2**31 - 1


class _Dumper(yaml.SafeDumper):
    """Writes `Inline` and `Flow` on one line, and everything else in blocks."""

    def ignore_aliases(self, _data: object) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, indentless=indentless and flow)


# In other styles PyYAML folds line breaks such as U+0085 away.
_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        f"{TAG}str", text, style=None if text.isprintable() else '"'
    ),
)
_Dumper.add_representer(
    Inline, lambda dumper, data: dumper.represent_mapping(f"{TAG}map", data, flow_style=True)
)
_Dumper.add_representer(
    Flow, lambda dumper, data: dumper.represent_sequence(f"{TAG}seq", data, flow_style=True)
)


def dump_all(documents: Iterable[Mapping[str, Any]]) -> str:
    """The documents as YAML, keys in the order given and no line folded."""
    return yaml.dump_all(
        documents, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_NO_FOLDING
    )
