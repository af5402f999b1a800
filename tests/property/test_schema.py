"""Whatever can be said fits the JSON Schema, and keeps its comments in place."""

import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from ringfence.policy.comments import find_comments, format_text
from ringfence.policy.document import Documents, format_documents
from ringfence.policy.schema import document_schema
from tests.property.test_document_round_trip import documents

VALIDATOR = Draft202012Validator(document_schema())


@given(documents())
def test_canonical_documents_fit_the_schema(given: Documents) -> None:
    for document in yaml.safe_load_all(format_documents(given)):
        VALIDATOR.validate(document)


@given(documents(), st.data())
def test_comments_of_canonical_text_stay_where_they_are(
    given: Documents, data: st.DataObject
) -> None:
    lines = format_documents(given).split("\n")
    fields = [number for number, line in enumerate(lines) if line != "---"]
    for number in data.draw(st.sets(st.sampled_from(fields), max_size=3)):
        line = lines[number]
        comment = f"# note {number}"
        alone = data.draw(st.booleans()) or not line or "#" in line
        indent = line[: len(line) - len(line.lstrip(" "))]
        lines[number] = f"{indent}{comment}\n{line}" if alone else f"{line}  {comment}"
    text = "\n".join(lines)
    assert len(find_comments(text)) == text.count("# note ")
    assert format_text(text, "given.yaml") == text
