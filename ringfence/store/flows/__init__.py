"""What agents observed: conversations and drops, in ClickHouse or the embedded chDB."""

from ringfence.store.flows.store import FlowStore, FlowStoreConfig

__all__ = ["FlowStore", "FlowStoreConfig"]
