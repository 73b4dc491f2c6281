"""How numbers are computed: precisions, casting in place, contractions, products, memory."""
