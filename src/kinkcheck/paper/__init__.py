"""The experiments of the papers, measured anew and set beside the published values.

[B24] is R. Boustany, *On the numerical reliability of nonsmooth autodiff: a MaxPool case study*
(TMLR 2024); [B21] is D. Bertoin, J. Bolte, S. Gerchinovitz and E. Pauwels, *Numerical influence of
ReLU'(0) on backpropagation* (NeurIPS 2021). One file an experiment: a function to numbers, a
function to ink, and what was published.
"""
