"""How results are shown: tables for the terminal."""

from kinkcheck.report.tables import audit_tables, program_table

__all__ = ["audit_tables", "program_table"]
