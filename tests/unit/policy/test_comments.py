"""Comments are carried to the canonical text, where the same is said."""

from ringfence.policy.comments import find_comments, format_text

SOURCE = """\
# the file
apiVersion: ringfence.io/v1alpha1
kind: Workspace
metadata: {name: shop}  # its name
spec:
  # who is governed
  scope: "shop"
  policies:  # in order
  # the front
  - consumer: {scope: shop, # everybody
      }
    id: one  # the id
    rank: default  # is left out
    provider: {filter: 'name = "#1"'}
    protocol: TCP
    ports:
      - 80  # http
      - 443 # https
    description: |  # why
      # no comment
      of the policy
    action: ALLOW
  catchAll: {inbound: DENY, outbound: DENY}
# the end
---
# before another
apiVersion: ringfence.io/v1alpha1
kind: Scope
metadata: {name: shop}
spec: {query: everything}
# the very end
"""
FORMATTED = """\
# the end
# before another
apiVersion: ringfence.io/v1alpha1
kind: Scope
metadata:
  name: shop
spec:
  query: everything
---
# the file
apiVersion: ringfence.io/v1alpha1
kind: Workspace
metadata:
  name: shop  # its name
spec:
  # who is governed
  scope: shop
  catchAll: {inbound: DENY, outbound: DENY}
  policies:  # in order
    # the front
    # the id
    # is left out
    - id: one
      description: "# no comment\\nof the policy\\n"  # why
      action: ALLOW
      consumer: {scope: shop}  # everybody
      provider: {filter: name = "#1"}
      protocol: TCP
      # http
      # https
      ports: [80, 443]
# the very end
"""


def test_comments_go_where_the_same_is_said() -> None:
    formatted = format_text(SOURCE, "shop.yaml")
    assert formatted == FORMATTED
    assert format_text(formatted, "shop.yaml") == formatted


def test_what_is_no_comment() -> None:
    assert find_comments("a: 'x # y'\nb: \"# z\"\nc: d#e\nf: >\n  # g\n") == []


def test_the_editors_comment_stays_in_the_first_line() -> None:
    for line in ("# yaml-language-server: $schema=policies.json", "# of the workspace"):
        workspace, scope = FORMATTED.split("---\n")[::-1][:2]
        formatted = format_text(f"{line}\n{workspace}---\n{scope}", "shop.yaml")
        assert formatted.startswith(f"{line}\n") is line.startswith("# yaml")
        assert formatted.count(line) == 1
        assert format_text(formatted, "shop.yaml") == formatted
