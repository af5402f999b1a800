"""What agents tell of a flow's ends themselves; no item of the inventory has it.

Filters and groups speak of it as of labels.
"""

TOLD = {
    "consumer.process.name": "consumer_process",
    "consumer.process.pid": "consumer_pid",
    "consumer.process.container": "consumer_container",
    "provider.process.name": "provider_process",
    "provider.process.pid": "provider_pid",
    "provider.process.container": "provider_container",
    "provider.dns.name": "provider_dns_name",
}
"""The columns of `wire.columns.FLOWS` that have it, empty or 0 where it is not known."""

TOLD_OF_EITHER = tuple(dict.fromkeys(key.partition(".")[2] for key in TOLD))
"""The same without the end."""
