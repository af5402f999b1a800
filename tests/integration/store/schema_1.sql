CREATE TABLE IF NOT EXISTS flows (tenant LowCardinality(String), kubernetes_cluster LowCardinality(String), node LowCardinality(String), observer UInt8, interface UInt32 CODEC(T64, ZSTD), protocol UInt8, consumer IPv6 CODEC(ZSTD), provider IPv6 CODEC(ZSTD), consumer_port UInt16 CODEC(ZSTD), provider_port UInt16 CODEC(ZSTD), method LowCardinality(String), forward_packets UInt64 CODEC(T64, ZSTD), forward_bytes UInt64 CODEC(T64, ZSTD), forward_flags UInt16 CODEC(ZSTD), reverse_packets UInt64 CODEC(T64, ZSTD), reverse_bytes UInt64 CODEC(T64, ZSTD), reverse_flags UInt16 CODEC(ZSTD), opened UInt64 CODEC(T64, ZSTD), answered UInt64 CODEC(T64, ZSTD), refused UInt64 CODEC(T64, ZSTD), first_ns Int64 CODEC(Delta, ZSTD), last_ns Int64 CODEC(Delta, ZSTD), consumer_revision UInt64 CODEC(ZSTD), provider_revision UInt64 CODEC(ZSTD), consumer_item LowCardinality(String), provider_item LowCardinality(String), first_consumer IPv6 CODEC(ZSTD), dialled IPv6 CODEC(ZSTD), dialled_port UInt16 CODEC(ZSTD), first_consumer_revision UInt64 CODEC(ZSTD), dialled_revision UInt64 CODEC(ZSTD), first_consumer_item LowCardinality(String), dialled_item LowCardinality(String), consumer_node LowCardinality(String), provider_node LowCardinality(String), rank UInt8, at_consumer Bool, at_provider Bool, connection UInt64 MATERIALIZED sipHash64(kubernetes_cluster, protocol, first_consumer, first_consumer_item, dialled, dialled_item, dialled_port) CODEC(ZSTD))
ENGINE = MergeTree ORDER BY (tenant, kubernetes_cluster, last_ns)
PARTITION BY toDate(fromUnixTimestamp64Nano(last_ns))
TTL toDateTime(fromUnixTimestamp64Nano(last_ns)) + INTERVAL 30 DAY
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS drops (tenant LowCardinality(String), kubernetes_cluster LowCardinality(String), node LowCardinality(String), source UInt8, observer UInt8, direction LowCardinality(String), pod String CODEC(ZSTD), protocol UInt8, consumer IPv6 CODEC(ZSTD), provider IPv6 CODEC(ZSTD), provider_port UInt16 CODEC(ZSTD), rule LowCardinality(String), reason LowCardinality(String), packets UInt64 CODEC(T64, ZSTD), overflow UInt64 CODEC(T64, ZSTD), consumer_revision UInt64 CODEC(ZSTD), provider_revision UInt64 CODEC(ZSTD), consumer_item LowCardinality(String), provider_item LowCardinality(String), first_ns Int64 CODEC(Delta, ZSTD), last_ns Int64 CODEC(Delta, ZSTD), connection UInt64 MATERIALIZED sipHash64(kubernetes_cluster, protocol, consumer, consumer_item, provider, provider_item, provider_port) CODEC(ZSTD))
ENGINE = MergeTree ORDER BY (tenant, kubernetes_cluster, last_ns)
PARTITION BY toDate(fromUnixTimestamp64Nano(last_ns))
TTL toDateTime(fromUnixTimestamp64Nano(last_ns)) + INTERVAL 30 DAY
SETTINGS non_replicated_deduplication_window = 10000;

CREATE TABLE IF NOT EXISTS batches (tenant LowCardinality(String), kubernetes_cluster LowCardinality(String), node LowCardinality(String), id String CODEC(ZSTD), window_start_ns Int64 CODEC(Delta, ZSTD), window_end_ns Int64 CODEC(Delta, ZSTD))
ENGINE = MergeTree ORDER BY (tenant, kubernetes_cluster, node, window_end_ns)
PARTITION BY toDate(fromUnixTimestamp64Nano(window_end_ns))
TTL toDateTime(fromUnixTimestamp64Nano(window_end_ns)) + INTERVAL 30 DAY
SETTINGS non_replicated_deduplication_window = 10000;
