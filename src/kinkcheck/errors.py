"""The one error that means "the input is at fault, not the program"."""


class InputError(ValueError):
    """Something given by the user cannot be used.

    The message is one line that names the argument, what was given and what is accepted; the
    command line prints it alone and exits with code 2.

    >>> raise InputError("--batch-size must be at least 1, not 0")
    Traceback (most recent call last):
    ...
    kinkcheck.errors.InputError: --batch-size must be at least 1, not 0
    """
