"""The rows, by what they move: each file declares related operations, in their order."""
