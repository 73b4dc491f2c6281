"""The tape: one forward pass, many backward passes, any model.

Nonsmooth calls inside the block are carried out by autograd functions that ask the tape, at
backward time, which selection to use. The model is neither rewritten nor changed.
"""

from kinkcheck.tape.notes import Unseen
from kinkcheck.tape.site import Site
from kinkcheck.tape.tape import Tape, record

__all__ = ["Site", "Tape", "Unseen", "record"]
