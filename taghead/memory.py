"""Memory of a training process on Linux: what a step frees stays with the process for the next one."""

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # M_* of glibc's malloc.h
_NEVER, _LARGE_BYTES = 2**31 - 1, 2**25  # the latter is the most that glibc itself goes up to


def keep_freed_memory() -> bool:
    """Tells glibc's allocator to keep what is freed, for this process and from now on.

    By itself it gives large blocks back to the system at once, so that each training step on a CPU meets its
    activations as new pages, and a page fault each. The peak stays what it was; between steps the process holds it.

    Returns:
        Whether it was told; False on systems without glibc, where nothing is done.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    # both: with one of them set alone, every large block is mapped anew
    return bool(libc.mallopt(_MMAP_THRESHOLD, _LARGE_BYTES) and libc.mallopt(_TRIM_THRESHOLD, _NEVER))
