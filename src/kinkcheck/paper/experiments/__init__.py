"""One file an experiment: how it is measured, drawn, and compared with what was published."""
