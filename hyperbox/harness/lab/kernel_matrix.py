"""Which kernels there are and which package versions they mean: pure data and choice.

``vm-images/matrix.toml`` names the series, ``vm-images/kernels.lock.json`` the exact
packages with their hashes. Nothing here touches the network or the disk. Versions are
ordered as Debian Policy 5.6.12 says.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cmp_to_key
from itertools import zip_longest
from typing import Any, TypeVar

from hyperbox.errors import ConfigError, HarnessError
from hyperbox.foreign import parse_json, parse_toml

__all__ = [
    "LOCK_FORMAT",
    "KernelRelease",
    "Matrix",
    "Package",
    "Series",
    "compare_versions",
    "lock_document",
    "newest",
    "package_from",
    "packages_in",
    "parse_lock",
    "parse_lock_file",
    "parse_matrix",
    "releases",
    "unlisted_releases",
]

LOCK_FORMAT = 1
"""Of the lock files of kernels and of guests."""

_Locked = TypeVar("_Locked")
_PARTS = ("base", "binary", "image", "modules")
_EMPTY_PACKAGE = 1_000_000  # bytes; packages that only depend on others are below
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*")  # Debian Policy 5.6.1
_VERSION = re.compile(r"[0-9][A-Za-z0-9.+~:-]*")  # Debian Policy 5.6.12
_RELEASE = re.compile(r"[0-9][A-Za-z0-9.+~_-]*")
_TOKENS = re.compile(r"([^0-9]*)([0-9]*)")


@dataclass(frozen=True)
class Package:
    """One deb file: name, Debian version, SHA-256, bytes, suite, path below the mirror.

    `listed` says whether a signed package list vouches for the hash. Packages of a series
    that Debian has moved on from stay in the mirror's pool after they left its lists; their
    hash was taken when the lock was written, and the lock vouches for it since.
    """

    name: str
    version: str
    sha256: str
    size: int
    suite: str
    filename: str
    listed: bool = True


@dataclass(frozen=True)
class KernelRelease:
    """A kernel as packaged: its series ("6.12"), ``uname -r``, version, packages."""

    series: str
    release: str
    version: str
    packages: tuple[Package, ...]

    @property
    def kernel_package(self) -> Package:
        """The package with the kernel image."""
        names = {package.name.split("-")[1]: package for package in self.packages}
        return names.get("binary") or names["image"]


@dataclass(frozen=True)
class Series:
    """A kernel series of the matrix, and why it is in it."""

    label: str
    why: str


@dataclass(frozen=True)
class Matrix:
    """The kernel matrix: Debian flavour, suites to look in, series, named sets."""

    flavour: str
    suites: tuple[str, ...]
    series: tuple[Series, ...]
    sets: Mapping[str, tuple[str, ...]]

    def labels(self) -> tuple[str, ...]:
        """Return all series, oldest first."""
        return tuple(series.label for series in self.series)

    def expand(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the series that `names` (series, set names, or "all") stand for, oldest first.

        Raises
        ------
        ConfigError
            If a name is neither.
        """
        known = self.labels()
        wanted: set[str] = set()
        for name in names:
            if name == "all":
                wanted.update(known)
            elif name in self.sets:
                wanted.update(self.sets[name])
            elif name in known:
                wanted.add(name)
            else:
                close = difflib.get_close_matches(name, [*known, *self.sets], n=1, cutoff=0.5)
                meant = f"did you mean {close[0]}? " if close else ""
                raise ConfigError(
                    f"unknown kernel {name!r}",
                    hint=f"{meant}known: {', '.join([*known, *self.sets])}, or a path to a bzImage",
                )
        return tuple(label for label in known if label in wanted)


def parse_matrix(text: str) -> Matrix:
    """Read ``matrix.toml``.

    Raises
    ------
    ConfigError
        If it is not TOML, or a key is missing or of the wrong kind.
    """
    try:
        table = parse_toml(text)
        series = tuple(Series(str(one["series"]), str(one["why"])) for one in table["kernel"])
        sets = {str(name): _strings(labels) for name, labels in table["sets"].items()}
        matrix = Matrix(str(table["flavour"]), _strings(table["suites"]), series, sets)
    except KeyError as error:
        raise ConfigError(f"matrix.toml lacks the key {error.args[0]!r}") from error
    except (TypeError, AttributeError) as error:
        raise ConfigError(f"matrix.toml has a value of the wrong kind: {error}") from error
    except ValueError as error:
        raise ConfigError(f"matrix.toml is not TOML: {error}") from error
    labels = matrix.labels()
    if sorted(set(labels), key=_numbers) != list(labels):
        raise ConfigError("matrix.toml: the series must be unique and go from old to new")
    for name, members in sets.items():
        for label in members:
            if label not in labels:
                raise ConfigError(f"matrix.toml: set {name!r} names the unknown series {label!r}")
    return matrix


def parse_lock(text: str) -> dict[str, KernelRelease]:
    """Read ``kernels.lock.json``: the locked release of each series.

    Raises
    ------
    ConfigError
        If it is not JSON, of another format, or an entry is incomplete.
    """

    def read(document: Any) -> dict[str, KernelRelease]:
        entries = document["kernels"].items()
        return {label: _locked_release(label, entry) for label, entry in entries}

    return parse_lock_file("kernels.lock.json", text, read)


def parse_lock_file(name: str, text: str, read: Callable[[Any], _Locked]) -> _Locked:
    """Return what `read` makes of the JSON document of a lock file.

    Raises
    ------
    ConfigError
        If it is not JSON, of another format, or `read` misses a key or meets a wrong value.
    """
    try:
        document = parse_json(text)
    except ValueError as error:
        raise ConfigError(f"{name} is not JSON: {error}") from error
    try:
        if document["format"] != LOCK_FORMAT:
            raise ConfigError(f"{name} has the unknown format {document['format']!r}")
        return read(document)
    except KeyError as error:
        raise ConfigError(f"{name} lacks the key {error.args[0]!r}") from error
    except (TypeError, AttributeError) as error:
        raise ConfigError(f"{name} has a value of the wrong kind: {error}") from error
    except ValueError as error:
        raise ConfigError(f"{name} is broken: {error}") from error


def lock_document(locked: Mapping[str, KernelRelease]) -> dict[str, object]:
    """Return the JSON document that `parse_lock` reads."""
    kernels = {
        label: {
            "release": release.release,
            "version": release.version,
            "packages": [asdict(package) for package in release.packages],
        }
        for label, release in locked.items()
    }
    return {"format": LOCK_FORMAT, "kernels": kernels}


def packages_in(text: str, suite: str, flavour: str) -> Iterator[Package]:
    """Return the kernel packages of one ``Packages`` list (Debian's repository format)."""
    wanted = _kernel_name(flavour)
    for stanza in text.split("\n\n"):
        head = stanza.lstrip("\n")
        if not head.startswith("Package: linux-"):
            continue
        if not wanted.fullmatch(head.partition("\n")[0].removeprefix("Package: ").strip()):
            continue
        fields = dict(
            line.split(": ", 1) for line in head.splitlines() if ": " in line and line[0] != " "
        )
        try:
            size = int(fields["Size"])
            yield package_from(
                {
                    "name": fields["Package"],
                    "version": fields["Version"],
                    "sha256": fields["SHA256"],
                    "size": size,
                    "suite": suite,
                    "filename": fields["Filename"],
                }
            )
        except (KeyError, ValueError) as error:
            raise HarnessError(
                f"broken package list of {suite}: {fields.get('Package')}: {error}"
            ) from error


def package_from(entry: Mapping[str, object]) -> Package:
    """Return a package as `dataclasses.asdict` has put it on record.

    Raises
    ------
    TypeError
        If a field is missing, unknown or of the wrong kind.
    ValueError
        If a field has a value that no package has, or one that would leave the mirror.
    """
    package = Package(**entry)  # type: ignore[arg-type]
    texts = (package.name, package.version, package.sha256, package.suite, package.filename)
    if not all(isinstance(text, str) for text in texts) or type(package.size) is not int:
        raise TypeError(f"package {str(package.name)[:80]!r}")
    if not isinstance(package.listed, bool):
        raise TypeError(f"listed is {package.listed!r}")
    if not _NAME.fullmatch(package.name) or not _VERSION.fullmatch(package.version):
        raise ValueError(f"{package.name[:80]!r} {package.version[:80]!r} is not a Debian package")
    if not _SHA256.fullmatch(package.sha256):
        raise ValueError(f"{package.name} has no proper sha256")
    if package.filename.startswith("/") or ".." in package.filename.split("/"):
        raise ValueError(f"{package.name} has a path outside the mirror")
    if package.size < 0:
        raise ValueError(f"{package.name} has a negative size")
    return package


def releases(packages: Iterable[Package], flavour: str) -> tuple[KernelRelease, ...]:
    """Group packages into kernels, newest version first within a series, series in order.

    A kernel split over packages is given only if it has its image and its modules: up to
    6.18 ``linux-image`` holds both; later ``linux-binary`` has the image (then
    ``linux-image`` is an empty package that only depends on the others).
    """
    wanted = _kernel_name(flavour)
    groups: dict[tuple[str, str], dict[str, Package]] = {}
    for package in packages:
        match = wanted.fullmatch(package.name)
        if match:
            group = groups.setdefault((match["release"], package.version), {})
            group.setdefault(match["part"], package)
    found = []
    for (release, version), parts in groups.items():
        chosen = _parts_of(parts)
        if chosen:
            series = ".".join(release.split(".")[:2])
            found.append(KernelRelease(series, f"{release}-{flavour}", version, chosen))
    ordered = sorted(sorted(found, key=lambda one: one.release), key=_NEWEST_FIRST)
    return tuple(sorted(ordered, key=lambda one: _numbers(one.series)))


def unlisted_releases(
    series: str, packages: Iterable[Package], flavour: str
) -> tuple[KernelRelease, ...]:
    """Return the kernels whose image is listed but whose modules are not, newest first.

    Debian drops the modules and base files of a series from its lists when the source
    package moves on, before the signed images, and before the files leave the pool. Their
    place there follows from name and version; hash ("") and size (0) are not known.
    """
    wanted = _kernel_name(flavour)
    found: dict[tuple[str, str], KernelRelease] = {}
    for package in packages:
        match = wanted.fullmatch(package.name)
        if match is None or match["part"] != "binary":
            continue
        if ".".join(match["release"].split(".")[:2]) != series:
            continue
        release, version = f"{match['release']}-{flavour}", package.version
        base = _pool_package(f"linux-base-{release}", package)
        modules = _pool_package(f"linux-modules-{release}", package)
        parts = (base, package, modules)
        found[release, version] = KernelRelease(series, release, version, parts)
    return tuple(sorted(found.values(), key=_NEWEST_FIRST))


def newest(series: str, available: Iterable[KernelRelease]) -> KernelRelease | None:
    """Return the newest release of a series, None if there is none."""
    return next((release for release in available if release.series == series), None)


def compare_versions(left: str, right: str) -> int:
    """Compare two Debian versions: negative, 0 or positive, as ``dpkg --compare-versions``."""
    left_epoch, left_upstream, left_revision = _version_parts(left)
    right_epoch, right_upstream, right_revision = _version_parts(right)
    return (
        _compare_part(left_epoch, right_epoch)
        or _compare_part(left_upstream, right_upstream)
        or _compare_part(left_revision, right_revision)
    )


def _newest_first(left: KernelRelease, right: KernelRelease) -> int:
    return compare_versions(right.version, left.version)


_NEWEST_FIRST = cmp_to_key(_newest_first)


def _kernel_name(flavour: str) -> re.Pattern[str]:
    # Three numbers at least: linux-image-6.12-cloud-amd64 is a meta-package.
    return re.compile(
        rf"linux-(?P<part>{'|'.join(_PARTS)})-(?P<release>\d+\.\d+\.\d+[^-]*(-[0-9][^-]*)?)"
        rf"-{re.escape(flavour)}"
    )


def _parts_of(parts: Mapping[str, Package]) -> tuple[Package, ...]:
    names: tuple[str, ...] = ()
    if "binary" in parts and "modules" in parts:
        names = ("base", "binary", "modules")
    elif "binary" not in parts and "image" in parts and parts["image"].size > _EMPTY_PACKAGE:
        names = ("base", "image")
    return tuple(parts[name] for name in names if name in parts)


def _pool_package(name: str, beside: Package) -> Package:
    version = beside.version.rpartition(":")[2]
    filename = f"pool/main/l/linux/{name}_{version}_amd64.deb"
    return Package(name, beside.version, "", 0, beside.suite, filename, listed=False)


def _locked_release(label: str, entry: Mapping[str, object]) -> KernelRelease:
    release, version, packages = entry["release"], entry["version"], entry["packages"]
    if not (isinstance(release, str) and isinstance(version, str) and isinstance(packages, list)):
        raise TypeError(f"the release of {label[:80]!r}")
    where = f"kernels.lock.json: {label[:80]!r}"
    if not (_RELEASE.fullmatch(label) and _RELEASE.fullmatch(release)):
        raise ConfigError(f"{where}: {release[:80]!r} is not a kernel's release")
    try:
        parts = tuple(package_from(package) for package in packages)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error
    kinds = [part.name.removeprefix("linux-").partition("-")[0] for part in parts]
    if not {*kinds} <= {*_PARTS} or not {"image", "binary"} & {*kinds}:
        names = ", ".join(part.name for part in parts)
        raise ConfigError(f"{where} has no kernel package, or others beside it: {names}")
    return KernelRelease(label, release, version, parts)


def _strings(values: object) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"expected a list of strings, found {values!r}")
    return tuple(values)


def _numbers(series: str) -> tuple[int, ...]:
    try:
        return tuple(int(number) for number in series.split("."))
    except ValueError as error:
        raise ConfigError(f"{series[:80]!r} is not a kernel series such as 6.12") from error


def _version_parts(version: str) -> tuple[str, str, str]:
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "")
    return epoch.lstrip("0") if epoch.isdecimal() else "", upstream, revision


def _compare_part(left: str, right: str) -> int:
    pairs = zip_longest(_TOKENS.findall(left), _TOKENS.findall(right), fillvalue=("", ""))
    for (left_text, left_number), (right_text, right_number) in pairs:
        for one, other in zip_longest(left_text, right_text, fillvalue=""):
            if one != other:
                return _order(one) - _order(other)
        one_number, other_number = left_number.lstrip("0"), right_number.lstrip("0")
        if one_number != other_number:  # of any length: int() takes 4300 digits
            one_first = (len(one_number), one_number) < (len(other_number), other_number)
            return -1 if one_first else 1
    return 0


def _order(character: str) -> int:
    # Tilde sorts before the end of the part, letters before everything else.
    if character == "~":
        return -1
    if character == "":
        return 0
    return ord(character) if character.isalpha() else ord(character) + 256
