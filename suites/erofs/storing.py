"""What an image set takes on disk on each rung: bytes allocated, indexes and manifests included."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from hyperbox.storage.rung import Rung
from suites.erofs.image_set import allocated, write_images
from suites.program import Measured, run_program, seed

__all__ = ["main"]

_SCALE = 0.5


def main() -> int:
    """Measure; return the exit status."""
    return run_program(_measure)


def _measure() -> Measured:
    with tempfile.TemporaryDirectory(prefix="hyperbox-") as directory:
        images = write_images(Path(directory), seed(), _SCALE)
        size = {rung: float(allocated(images.converted(rung))) for rung in Rung}
    return Measured(
        {
            **{f"{rung}_bytes": bytes_ for rung, bytes_ in size.items()},
            "of_composefs": 100 * size[Rung.EROFS] / size[Rung.COMPOSEFS],
            "of_unpacked": 100 * size[Rung.EROFS] / size[Rung.OVERLAY],
            "layers_of_composefs": 100 * size[Rung.LAYERS] / size[Rung.COMPOSEFS],
        }
    )


if __name__ == "__main__":
    sys.exit(main())
