"""The words of the domain: frozen types, identifiers and the query language, with no I/O."""
