"""What the experiments have in common: rows, cases, comparisons, parts that are kept, a run."""
