"""What a user did wrong, told in one line: the only error that a command prints without a traceback (exit status 2)."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Input that a user gave and can mend: the message states the rule, the value and the remedy."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """The remedy for a name that is not known: ``"; did you mean 'alpha'?"``, or the list of what there is.

    Args:
        name: What was given.
        valid: The names that would have been right.
    """
    valid = list(valid)
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; valid names: {', '.join(sorted(valid))}."
