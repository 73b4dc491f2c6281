"""How results are shown: tables for the terminal, one HTML file with figures."""

from kinkcheck.report.tables import audit_tables, program_table, threshold_table, zone_table

__all__ = ["audit_tables", "program_table", "threshold_table", "zone_table"]
