"""What the command lines share: a user's mistake is one line and exit status 2, our own bugs keep their traceback.

A path that cannot be read or written is the user's too: they named it, or own the disk.
"""

import sys
from collections.abc import Callable
from typing import Any

from taghead.errors import InputError


def run_app(app: Callable[[], Any]) -> None:
    """Runs a command-line app, and prints an `InputError` without its traceback.

    Args:
        app: The typer app.
    """
    try:
        app()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        if error.filename is None:
            raise
        print(f"error: {error.filename}: {error.strerror}.", file=sys.stderr)
        sys.exit(2)
