"""Makes a profile from recordings on standard input, a line each; for `learning` to compare."""

from __future__ import annotations

import json
import sys

from hyperbox.isolation.default_profile import default_profile
from hyperbox.isolation.recording import parse_recording
from hyperbox.isolation.seccomp_gen import generate


def main() -> int:
    """Print the profile; return the exit status."""
    lines = sys.stdin.buffer.read().splitlines()
    recordings = [parse_recording(json.loads(line), "standard input") for line in lines]
    sys.stdout.buffer.write(generate(recordings, default_profile()).profile.encoded())
    return 0


if __name__ == "__main__":
    sys.exit(main())
