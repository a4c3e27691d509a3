"""Settings of the verbs about images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hyperbox.settings import InFile, SettingKind, SettingsTable, declared
from hyperbox.storage.images import ROOT
from hyperbox.storage.ladder import Enabled
from hyperbox.storage.limits import Limits
from hyperbox.storage.platforms import parse_platform
from hyperbox.storage.pull import JOBS, PullOptions
from hyperbox.storage.ready_image import TakeReady
from hyperbox.storage.transport import Options

__all__ = ["IMAGES", "LIMITS", "ImageSettings"]

LIMITS = ("largest-ratio", "most-entries", "most-depth", "most-bytes")
"""The settings that say how much a layer may ask for."""


@dataclass(frozen=True)
class ImageSettings:
    """Where images are kept, and how registries are reached."""

    root: Path = declared(ROOT, "the store of images", SettingKind.PATH, metavar="DIR")
    platform: str | None = declared(
        None,
        "take images for this platform",
        metavar="OS/ARCH[/VARIANT]",
        usual="this machine's",
    )
    parallel: int = declared(
        JOBS, "layers at once", SettingKind.WHOLE, metavar="N", least=1, most=64
    )
    plain_http: bool | None = declared(
        None,
        "reach registries by HTTP without TLS",
        SettingKind.FLAG,
        usual="for registries on this machine only",
    )
    ca_file: Path | None = declared(
        None, "certificates to trust", SettingKind.PATH, metavar="FILE", usual="the system's"
    )
    erofs_enabled: str = declared(
        "auto",
        "whether images are mounted as EROFS: auto where it works, on or else an error, off never",
        choices=tuple(Enabled),
    )
    ready_images: str = declared(
        "auto",
        "whether a pull takes the EROFS image that a builder has attached in place of the layers: "
        "auto for names without a digest, on or else an error, off never",
        choices=tuple(TakeReady),
    )
    largest_ratio: int = declared(
        Limits.ratio,
        "most bytes that a layer of more than 64 MiB decompresses to for each of its own",
        SettingKind.WHOLE,
        metavar="N",
        least=1,
    )
    most_entries: int = declared(
        Limits.entries, "most entries of a layer", SettingKind.WHOLE, metavar="N", least=1
    )
    most_depth: int = declared(
        Limits.depth,
        "most directories of a layer in each other",
        SettingKind.WHOLE,
        metavar="N",
        least=1,
    )
    most_bytes: int = declared(
        Limits.total_bytes,
        "most bytes of a layer's files together, holes included",
        SettingKind.WHOLE,
        metavar="BYTES",
        least=1,
    )

    @property
    def limits(self) -> Limits:
        """What a layer may ask for when it is converted."""
        return Limits(
            ratio=self.largest_ratio,
            entries=self.most_entries,
            depth=self.most_depth,
            total_bytes=self.most_bytes,
        )

    def options(self) -> PullOptions:
        """Return them as pulls and pushes take them.

        Raises
        ------
        ConfigError
            If the platform is none.
        """
        platform = parse_platform(self.platform) if self.platform else None
        reached = Options(plain_http=self.plain_http, ca_file=self.ca_file)
        return PullOptions(platform=platform, jobs=self.parallel, transport=reached)


IMAGES = SettingsTable("images", ImageSettings, in_file=InFile.NAMED)
