"""The relational schema. Every table names its tenant; what a person did names the actor.

Times are epoch nanoseconds. A migration in `migrations/versions` makes each change to it.
"""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    false,
)

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

tokens = Table(
    "tokens",
    metadata,
    Column("digest", Text, primary_key=True),  # SHA-256 in hex: the token itself is never kept
    Column("tenant", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    Column("expires_ns", BigInteger),  # null: never
)

enrolment_tokens = Table(
    "enrolment_tokens",
    metadata,
    Column("digest", Text, primary_key=True),
    Column("tenant", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("kubernetes_cluster", Text, nullable=False),
    Column("uses_left", Integer, nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    Column("expires_ns", BigInteger, nullable=False),
)

scopes = Table(
    "scopes",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("parent", Text),  # null: the root
    Column("query", Text, nullable=False),  # in the filter language
    Column("position", Integer, nullable=False),
    Column("actor", Text, nullable=False),
    Column("changed_ns", BigInteger, nullable=False),
)

filters = Table(
    "filters",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("scope", Text, nullable=False),
    Column("query", Text, nullable=False),  # in the filter language
    Column("restricted", Boolean, nullable=False),
    Column("public", JSON, nullable=False),  # `model.scope.PublicPorts`
    Column("actor", Text, nullable=False),
    Column("changed_ns", BigInteger, nullable=False),
)

workspaces = Table(
    "workspaces",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("scope", Text, nullable=False),  # empty for imported policies
    Column("is_primary", Boolean, nullable=False),
    Column("kubernetes_cluster", Text),  # whose policies were imported; null: Ringfence's own
    Column("latest", Integer, nullable=False),  # version
    Column("actor", Text, nullable=False),
    Column("changed_ns", BigInteger, nullable=False),
    # Its versions stay, so that no number is used twice: reports of drops name them.
    Column("deleted", Boolean, nullable=False, server_default=false()),
)

workspace_versions = Table(
    "workspace_versions",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("workspace", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column(
        "document", Text, nullable=False
    ),  # canonical YAML; a manifest a line of imported policies
    Column("actor", Text, nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    ForeignKeyConstraint(["tenant", "workspace"], ["workspaces.tenant", "workspaces.name"]),
)

analysed_versions = Table(
    "analysed_versions",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("workspace", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("actor", Text, nullable=False),
    Column("at_ns", BigInteger, nullable=False),  # the first time
    ForeignKeyConstraint(
        ["tenant", "workspace", "version"],
        [f"workspace_versions.{name}" for name in ("tenant", "workspace", "version")],
    ),
)

enforcement = Table(
    "enforcement",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("revision", Integer, primary_key=True),
    Column("workspaces", JSON, nullable=False),  # [[name, version], …]
    Column("actor", Text, nullable=False),
    Column("since_ns", BigInteger, nullable=False),
    # At some nodes alone until then; 0: everywhere from the start, null: still so.
    Column("staged_until_ns", BigInteger, server_default="0"),
)

trials = Table(
    "trials",
    metadata,
    Column("tenant", Text, primary_key=True),  # one at a time
    Column("revision", Integer, nullable=False),  # of `enforcement`, that is on trial
    Column("previous", Integer, nullable=False),  # of `enforcement`, to go back to; 0: nothing
    Column("until_ns", BigInteger, nullable=False),
    Column("nodes", JSON),  # [[kubernetes_cluster, node], …]; null: all
    Column("threshold", Float),  # of a staged one; null: somebody has to confirm
    Column("kubernetes_cluster", Text),  # whose own policies are on trial; null: the set is
    Column("began_ns", BigInteger, nullable=False, server_default="0"),
)

enforced_kubernetes_clusters = Table(
    "enforced_kubernetes_clusters",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("kubernetes_cluster", Text, primary_key=True),
    Column("actor", Text, nullable=False),
    Column("since_ns", BigInteger, nullable=False),
)

quarantines = Table(
    "quarantines",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("kubernetes_cluster", Text, primary_key=True),  # empty outside Kubernetes
    Column("workload", Text, primary_key=True),  # as people name it
    Column("query", Text, nullable=False),  # in the filter language
    Column("allow", JSON, nullable=False),  # words of `policy.quarantine`
    Column("reason", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("since_ns", BigInteger, nullable=False),
    Column("expires_ns", BigInteger),  # null: never
)

requests = Table(
    "requests",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),  # a digest of what is requested
    Column("state", Text, nullable=False),  # a `model.approval.State`
    Column("workspace", Text, nullable=False),  # that asks
    Column("policy", Text, nullable=False),
    Column("provider_workspace", Text, nullable=False),  # that is asked
    Column("text", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("raised_ns", BigInteger, nullable=False),
    Column("changed_ns", BigInteger, nullable=False),
)

approval_rules = Table(
    "approval_rules",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),  # a digest of what is approved
    Column("provider_workspace", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("provider", Text),  # in the filter language; null: every workload
    Column("protocol", Integer),  # null: any
    Column("ports", JSON, nullable=False),  # [[first, last], …]
    Column("actor", Text, nullable=False),
    Column("created_ns", BigInteger, nullable=False),
)

agent_modes = Table(
    "agent_modes",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("kubernetes_cluster", Text, primary_key=True),  # empty outside Kubernetes
    Column("node", Text, primary_key=True),
    Column("mode", Text, nullable=False),  # a `model.flow.Mode`
    Column("actor", Text, nullable=False),
    Column("changed_ns", BigInteger, nullable=False),
)

uploaded_labels = Table(
    "uploaded_labels",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("network", Text, primary_key=True),  # a CIDR block
    Column("name", Text, nullable=False),  # empty for none
    Column("labels", JSON, nullable=False),  # {key: value}, keys without `user.`
    Column("actor", Text, nullable=False),
    Column("changed_ns", BigInteger, nullable=False),
)

dns_names = Table(
    "dns_names",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("name", Text, primary_key=True),  # in lower case, without the last dot
    Column("address", Text, primary_key=True),
    Column("from_ns", BigInteger, nullable=False),
    Column("until_ns", BigInteger, nullable=False),
    Column("teller", Text, nullable=False),  # the node whose agent said so
)

address_sets = Table(
    "address_sets",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("source", JSON, nullable=False),  # {addresses}, {url, every_seconds}; {}: uploaded
    Column("actor", Text, nullable=False),
    Column("changed_ns", BigInteger, nullable=False),
    Column("refreshed_ns", BigInteger),  # null: never
    Column("tried_ns", BigInteger),  # null: not since it is as it is
    Column("problem", Text, nullable=False),  # empty: the last try went well
)

address_set_contents = Table(
    "address_set_contents",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("from_ns", BigInteger, primary_key=True),
    Column("packed", LargeBinary, nullable=False),  # as `inventory.contents.pack` makes it
)

changes = Table(
    "changes",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("tenant", Text, nullable=False),
    Column("at_ns", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("source", Text, nullable=False),  # the address the request came from
    Column("object", Text, nullable=False),  # KIND/NAME of what changed
    Column("what", Text, nullable=False),
    Column("difference", Text, nullable=False),
    Index("ix_changes_tenant_at_ns", "tenant", "at_ns"),
)

item_revisions = Table(
    "item_revisions",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("revision", BigInteger, primary_key=True),
    Column("kubernetes_cluster", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("from_ns", BigInteger, nullable=False),
    Column("to_ns", BigInteger, nullable=False),  # 2^63 - 1: it still holds
    Column("document", Text, nullable=False),  # a `model.workload.Item` as JSON
)

analyses = Table(
    "analyses",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("workspace", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("actor", Text, nullable=False),
    Column("since_ns", BigInteger, nullable=False),
)

past_analyses = Table(
    "past_analyses",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("workspace", Text, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("since_ns", BigInteger, primary_key=True),
    Column("until_ns", BigInteger, nullable=False),
)

verdicts = Table(
    "verdicts",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("tenant", Text, nullable=False),
    Column("workspace", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("start_ns", BigInteger, nullable=False),  # of the time that is told of
    Column("end_ns", BigInteger, nullable=False),
    Column("enforced", Boolean, nullable=False),  # then
    Column("category", Text, nullable=False),  # a `model.flow.Category`
    Column("rules", JSON, nullable=False),  # {end's role: rule}, as `verdicts.Rule` is stored
    # Of what ought not to be; elsewhere empty and 0.
    Column("consumer", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("protocol", Integer, nullable=False),
    Column("port", Integer, nullable=False),
    Column("conversations", BigInteger, nullable=False),
    Column("last_ns", BigInteger, nullable=False),
    Index("ix_verdicts_tenant_workspace", "tenant", "workspace", "version", "start_ns"),
    Index("ix_verdicts_tenant_start_ns", "tenant", "start_ns"),
)

alerts = Table(
    "alerts",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("id", Text, primary_key=True),  # a digest of the cause and of when it was opened
    Column("cause", JSON, nullable=False),  # a `model.tally.Cause`
    Column("conversations", BigInteger, nullable=False),
    Column("first_ns", BigInteger, nullable=False),
    Column("last_ns", BigInteger, nullable=False),
    Column("heard_ns", BigInteger, nullable=False),  # when something was last told of it
    Column("resolved_ns", BigInteger),  # null: open
)

alert_sinks = Table(
    "alert_sinks",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("url", Text, nullable=False),
    Column("secret", Text, nullable=False),  # sealed; empty for none; never told
    Column("actor", Text, nullable=False),
    Column("changed_ns", BigInteger, nullable=False),
    Column("refused", BigInteger, nullable=False),  # notices that it would not take
    Column("problem", Text, nullable=False),  # empty: the last attempt went well
)

alert_notices = Table(
    "alert_notices",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("tenant", Text, nullable=False),
    Column("sink", Text, nullable=False),  # that is to have it
    Column("notice", JSON, nullable=False),  # an `export.alerts.interface.Notice`
    Index("ix_alert_notices_tenant_sink", "tenant", "sink", "id"),
)

experiments = Table(
    "experiments",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("tenant", Text, nullable=False),
    Column("workspace", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("since_ns", BigInteger, nullable=False),
    Column("until_ns", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("began_ns", BigInteger, nullable=False),
    Column("ended_ns", BigInteger),  # null: it is to go on
    Column("problem", Text, nullable=False),  # why there is no result; empty otherwise
    Column("result", JSON),  # [`model.tally.Tally`, …]
)

promotions = Table(
    "promotions",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("scope", Text, primary_key=True),
    Column("criteria", JSON, nullable=False),  # a `model.promotion.Criteria`
    Column("workspace", Text),  # with `version`, what was promoted; null: nothing yet
    Column("version", Integer),
    Column("demoted_ns", BigInteger),  # null: it was not taken back
    Column("why", Text, nullable=False),
)

recommendations = Table(
    "recommendations",
    metadata,
    Column("tenant", Text, primary_key=True),
    Column("scope", Text, primary_key=True),
    Column("window_seconds", Integer, nullable=False),  # of traffic that is looked at
    Column("actor", Text, nullable=False),
    Column("since_ns", BigInteger, nullable=False),  # it is watched
    Column("looked_ns", BigInteger),  # the last time; null: not yet
    Column("changed_ns", BigInteger),  # since when the recommendation is this one
    Column("problem", Text, nullable=False),  # empty: the last look went well
    Column("version", Integer),  # of the scope's workspace that it is for; null: it has none
    Column("proposed", Text, nullable=False),  # canonical YAML; empty: nothing yet
    Column("changes", JSON, nullable=False),  # [{change, policy, conversations, last, note}, …]
    Column("approved", JSON, nullable=False),  # [{policy, conversations, last, note}, …]
)
