"""What connections mean: direction, deduplication, relation, labels and disposition."""
