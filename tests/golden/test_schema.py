"""The JSON Schema that editors get, and that it takes just what can be read."""

import json
import re
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from ringfence.inventory.file_format import inventory_schema
from ringfence.inventory.recorded import read_items
from ringfence.policy.document import parse_documents
from ringfence.policy.errors import DocumentError
from ringfence.policy.schema import document_schema
from tests.golden.conftest import Golden
from tests.unit.control.shop import DOCUMENTS
from tests.unit.policy.test_document import CANONICAL

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLES = [
    CANONICAL,
    DOCUMENTS,
    *(
        text
        for page in sorted(DOCS.glob("*.md"))
        for text in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL)
        if "apiVersion: ringfence.io/" in text
    ),
]
VALIDATOR = Draft202012Validator(document_schema())


def test_schema(golden: Golden) -> None:
    Draft202012Validator.check_schema(document_schema())
    golden("schema.json", json.dumps(document_schema(), indent=2) + "\n")


def test_inventory_schema(golden: Golden) -> None:
    Draft202012Validator.check_schema(inventory_schema())
    golden("inventory-schema.json", json.dumps(inventory_schema(), indent=2) + "\n")
    (example,) = re.findall(
        r"```yaml\n(kind: Inventory\n.*?)```", (DOCS / "inventory-export.md").read_text(), re.DOTALL
    )
    Draft202012Validator(inventory_schema()).validate(yaml.safe_load(example))
    assert [item.name for item in read_items(example, "example.yaml")] == ["carts-7d9c-x2x4k"]


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples_can_be_read_and_fit_the_schema(text: str) -> None:
    parse_documents(text, "example.yaml")
    for document in yaml.safe_load_all(text):
        VALIDATOR.validate(document)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("kind: Scope", "kind: Scoop"),
        ("query: everything", "query: ''"),
        ("spec: {query: everything}", "spec: {query: everything, ordr: 1}"),
        ("inbound: DENY, ", ""),
        ("outbound: ALLOW", "outbound: allow"),
        ("action: ALLOW", "action: PASS"),
        ("    protocol: TCP\n", ""),
        ("protocol: TCP", "protocol: ICMP"),
        ("ports: [3306]", "ports: []"),
        ("ports: [3306]", "ports: [70000]"),
        ("ports: [3306]", "ports: [HTTP]"),
        ("consumer: {filter: 'name = \"front\"'}", "consumer: {service: shop/front}"),
        ("provider: {filter: 'name = \"db\"'}", "provider: {scope: shop, cidr: 10.0.0.1}"),
        ("provider: {filter: 'name = \"db\"'}", "provider: {scope: shop, except: 10.0.0.1}"),
        ("provider: {filter: 'name = \"db\"'}", "provider: {}"),
    ],
)
def test_what_cannot_be_read_does_not_fit_the_schema(old: str, new: str) -> None:
    assert old in DOCUMENTS
    text = DOCUMENTS.replace(old, new)
    with pytest.raises(DocumentError):
        parse_documents(text, "bad.yaml")
    assert not all(VALIDATOR.is_valid(document) for document in yaml.safe_load_all(text))
