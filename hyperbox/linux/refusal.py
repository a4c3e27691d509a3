"""From an errno to our errors: what the kernel refuses, as one line with a hint."""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Mapping

from hyperbox.errors import KernelFeatureMissing, WorkloadError

__all__ = ["refusal"]

_HINTS: Mapping[int, str] = {
    errno.EACCES: "run as root",
    errno.EPERM: "run as root",
    errno.EROFS: "it is mounted read-only, as in a container or a service's sandbox",
}


def refusal(
    what: str,
    error: OSError | int,
    *,
    missing: Collection[int] = (),
    hints: Mapping[int, str] | None = None,
) -> WorkloadError | KernelFeatureMissing:
    """Return the error to raise for a call that the kernel refused.

    Parameters
    ----------
    what
        What was tried, on what: "cannot mount erofs on /mnt". The kernel's reason is added.
    error
        What Python raised, or the errno: ``ctypes.get_errno()`` right after a call by ctypes.
    missing
        Errnos by which this call says that the kernel lacks the feature, beside ENOSYS.
    hints
        What to do about an errno of this call, where it is not what is usually done.

    Returns
    -------
    KernelFeatureMissing or WorkloadError
        The first if the kernel lacks the feature.
    """
    number = error if isinstance(error, int) else error.errno or 0
    reason = os.strerror(number) if number else str(error)
    kind = KernelFeatureMissing if number in (errno.ENOSYS, *missing) else WorkloadError
    hint = (hints or {}).get(number, _HINTS.get(number, ""))
    return kind(f"{what}: {reason}", hint=hint)
