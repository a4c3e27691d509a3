"""Settings of the verbs about images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hyperbox.settings import InFile, Kind, SettingsTable, declared
from hyperbox.storage.images import ROOT
from hyperbox.storage.platforms import parse_platform
from hyperbox.storage.pull import JOBS, PullOptions
from hyperbox.storage.transport import Options

__all__ = ["IMAGES", "ImageSettings"]


@dataclass(frozen=True)
class ImageSettings:
    """Where images are kept, and how registries are reached."""

    root: Path = declared(ROOT, "the store of images", Kind.PATH, metavar="DIR")
    platform: str | None = declared(
        None,
        "take images for this platform",
        metavar="OS/ARCH[/VARIANT]",
        usual="this machine's",
    )
    parallel: int = declared(JOBS, "layers at once", Kind.WHOLE, metavar="N", least=1, most=64)
    plain_http: bool | None = declared(
        None,
        "reach registries by HTTP without TLS",
        Kind.FLAG,
        usual="for registries on this machine only",
    )
    ca_file: Path | None = declared(
        None, "certificates to trust", Kind.PATH, metavar="FILE", usual="the system's"
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
