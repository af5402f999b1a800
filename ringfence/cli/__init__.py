"""The command line: an HTTP client like any other, plus the pure rooms offline."""
