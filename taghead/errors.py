"""What a user did wrong, told in one line: the only error that a command prints without a traceback (exit status 2)."""

import difflib
import traceback
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


def in_file(error: Exception, path: str) -> str:
    """What went wrong in a file of the user's, with its last line that took part: ``file.py:3: NameError: ...``.

    Args:
        error: What came out of running the file.
        path: The file, as it was compiled under.
    """
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    text = str(error)
    if isinstance(error, SyntaxError) and error.filename == path:
        lines.append(error.lineno)
        text = error.msg
    place = f"{path}:{lines[-1]}" if lines and lines[-1] else path
    text = (text.strip().splitlines() or [""])[0]
    if isinstance(error, InputError):
        return f"{place}: {text}"
    return f"{place}: {type(error).__name__}: {text}".removesuffix(": ")
