"""What the benchmarks share: the work, the measuring, the ledger and the report."""
