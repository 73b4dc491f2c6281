"""How results are shown: tables for the terminal, one HTML file with figures."""
