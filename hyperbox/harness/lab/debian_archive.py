"""Debian's archive through a private apt root: lists with checked signatures, files by hash.

The machine's own apt lists, keys and packages are neither used nor changed; its proxy and
other ``apt.conf.d`` settings apply. The mirror is the one that the machine itself uses,
unless ``HYPERBOX_DEBIAN_MIRROR`` or an argument names another.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from urllib.parse import unquote

from hyperbox.errors import ConfigError, HarnessError, MissingDependency
from hyperbox.files import (
    has_sha256,
    locked,
    read_sealed,
    replace_file,
    sha256_file,
    write_sealed,
    write_text,
)
from hyperbox.harness.lab.apt_sources import (
    machine_sources,
    main_mirror,
    resolved,
    scheme,
    security_mirror,
)
from hyperbox.harness.lab.kernel_matrix import Package, package_from, packages_in
from hyperbox.processes import require, run, spawn, stop

__all__ = [
    "DebianArchive",
    "HashMismatch",
    "MirrorSilent",
    "PackageGone",
    "UntrustedLists",
    "debian_mirror",
]

MIRROR_VARIABLE = "HYPERBOX_DEBIAN_MIRROR"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_HELPER = "/usr/lib/apt/apt-helper"
_BROKEN_TRUST = re.compile(
    "not signed|no longer signed|GPG error|NO_PUBKEY|BADSIG|[Hh]ash|unexpected size|"
    "Clearsigned|Splitting"
)
_ABSENT = re.compile(r"The repository '\S+ (?P<suite>\S+) Release' does not have a Release file")
_MINIMAL = ("?essential", "?priority(required)", "apt")
_FILE_LIMIT_S = 1800.0
_UPDATE_LIMIT_S = 600.0

# -c is read after apt.conf.d, so these win over the machine's settings.
_CONFIGURATION = """\
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Architecture "amd64";
#clear APT::Architectures;
APT::Architectures { "amd64"; };
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
APT::Update::Error-Mode "any";
APT::Get::AllowUnauthenticated "false";
Acquire::AllowInsecureRepositories "false";
Acquire::AllowWeakRepositories "false";
Acquire::AllowDowngradeToInsecureRepositories "false";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
"""

_PLACES = {
    "Dir::State": "state",
    "Dir::State::status": "status",
    "Dir::Cache": "cache",
    "Dir::Etc::sourcelist": "sources.list",
}

Progress = Callable[[str, float], None]


class MirrorSilent(HarnessError):
    """The mirror does not answer."""


class UntrustedLists(HarnessError):
    """The mirror's package lists are not signed by Debian, or changed after that."""


class PackageGone(HarnessError):
    """The mirror answers, but has no such file."""


class HashMismatch(HarnessError):
    """The mirror's file is not the one that the lock or the signed list names."""


def debian_mirror(mirror: str | None = None) -> str:
    """Return the URL of the Debian mirror to use, without a final slash.

    The argument wins, then ``HYPERBOX_DEBIAN_MIRROR``, then the machine's apt sources.

    Raises
    ------
    ConfigError
        If the chosen one is not a URL, or none is configured.
    """
    chosen = mirror or os.environ.get(MIRROR_VARIABLE)
    if chosen:
        if scheme(chosen) not in ("http", "https", "file"):
            raise ConfigError(
                f"the Debian mirror {chosen!r} is not a URL", hint="use http://HOST/debian"
            )
        return chosen.rstrip("/")
    found = main_mirror(machine_sources())
    if found is None:
        raise ConfigError(
            "no Debian mirror in this machine's apt sources",
            hint=f"set {MIRROR_VARIABLE} to the URL of one",
        )
    return resolved(found)


class DebianArchive:
    """Debian's package lists and files, fetched into a directory of our own.

    Parameters
    ----------
    root
        Directory for apt's state; created when needed.
    mirror
        URL of the mirror; see `debian_mirror`.
    keyring
        OpenPGP keys that may sign the lists.
    """

    def __init__(self, root: Path, *, mirror: str | None = None, keyring: Path = _KEYRING) -> None:
        self.root = root
        self.mirror = debian_mirror(mirror)
        self.keyring = keyring
        configured = None if mirror or os.environ.get(MIRROR_VARIABLE) else machine_sources()
        found = security_mirror(configured) if configured else None
        # Mirrors carry the security archive beside the main one, by convention.
        self.left_out: tuple[str, ...] = ()
        self.security = resolved(found) if found else f"{self.mirror}-security"

    def refresh(
        self, suites: Iterable[str], flavour: str, progress: Progress | None = None
    ) -> tuple[Package, ...]:
        """Fetch the lists of `suites`, check their signatures, return the kernel packages.

        A security suite that the mirror does not have at all is left out, and `left_out` names
        it. One that is there and cannot be read, or that was there before, is an error: without
        it the newest kernels would be older ones.

        Raises
        ------
        MirrorSilent
            If the mirror does not answer.
        UntrustedLists
            If a signature or a hash is wrong or absent, or a security suite has gone.
        MissingDependency
            If apt or Debian's keys are missing.
        """
        if not self.keyring.exists():
            raise MissingDependency(
                f"no keys of Debian's archive at {self.keyring}",
                hint="apt-get install --no-install-recommends debian-archive-keyring",
            )
        report = progress or (lambda _text, _fraction: None)
        wanted = tuple(suites)
        with locked(self.root / "lock"):
            report("fetching package lists", 0.0)
            errors = self._update(wanted)
            absent = {match["suite"] for match in map(_ABSENT.search, errors) if match}
            left_out = tuple(one for one in wanted if _is_security(one) and one in absent)
            if left_out:
                errors = self._update([suite for suite in wanted if suite not in left_out])
            if errors:
                raise self._refused(errors[0])
            self.left_out = left_out
            report("reading package lists", 0.6)
            packages = tuple(self._listed_packages(flavour))
            document = {
                "mirror": self.mirror,
                "suites": wanted,
                "left_out": left_out,
                "packages": [asdict(one) for one in packages],
            }
            write_sealed(self.root / "packages.json", document)
            report("reading package lists", 1.0)
        return packages

    def known(self) -> tuple[Package, ...] | None:
        """Return the packages of the last `refresh` from this mirror; None if there was none.

        `left_out` is what it was then.
        """
        document = read_sealed(self.root / "packages.json")
        try:
            if document is None or document["mirror"] != self.mirror:
                return None
            packages = tuple(package_from(entry) for entry in document["packages"])
            self.left_out = tuple(map(str, document["left_out"]))
        except (KeyError, TypeError, ValueError):  # another version's
            return None
        return packages

    def age(self) -> float:
        """Return the seconds since the last `refresh`; infinite if there was none.

        Lists of the future are of any age: the clock was wrong then, or is wrong now.
        """
        try:
            seconds = time.time() - (self.root / "packages.json").stat().st_mtime
        except OSError:
            return float("inf")
        return seconds if seconds >= 0 else float("inf")

    def url(self, package: Package) -> str:
        """Return the URL of a package's file."""
        base = self.security if _is_security(package.suite) else self.mirror
        return f"{base}/{package.filename}"

    def download(self, package: Package, target: Path, progress: Progress | None = None) -> None:
        """Fetch a package's file to `target`; it is whole and has the right hash, or absent.

        Raises
        ------
        PackageGone, HashMismatch, MirrorSilent
            As their names say.
        """
        expected = (f"SHA256:{package.sha256}",)
        self._fetch(package, expected, target, progress)
        if sha256_file(target) != package.sha256:
            target.unlink()
            raise _mismatch(package, self.url(package))

    def download_all(
        self, packages: Sequence[Package], directory: Path, progress: Progress | None = None
    ) -> None:
        """Fetch the files that `directory` lacks, each named by its hash, ``<sha256>.deb``.

        Raises
        ------
        PackageGone, HashMismatch, MirrorSilent
            As their names say; what arrived before stays.
        """
        places = {one.sha256: directory / f"{one.sha256}.deb" for one in packages}
        lacking = [
            one
            for one in packages
            if not (places[one.sha256].exists() and has_sha256(places[one.sha256], one.sha256))
        ]
        if not lacking:
            return
        report = progress or (lambda _text, _fraction: None)
        report(f"fetching {len(lacking)} packages", 0.0)
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory, prefix=".fetching-") as scratch:
            words: list[str | os.PathLike[str]] = []
            for one in lacking:
                words += [self.url(one), Path(scratch, one.sha256), f"SHA256:{one.sha256}"]
            command = self._apt(_HELPER, "download-file", *words)
            done = run(command, timeout=_FILE_LIMIT_S, check=False)
            errors = done.stderr.decode(errors="replace")
            for one in lacking:
                partial = Path(scratch, one.sha256)
                if not partial.exists():
                    raise self._explained(one, errors)
                if sha256_file(partial) != one.sha256:
                    raise _mismatch(one, self.url(one))
                _keep(partial, places[one.sha256])
        report(f"fetching {len(lacking)} packages", 1.0)

    def closures(
        self, suite: str, wanted: Mapping[str, Sequence[str]]
    ) -> dict[str, tuple[Package, ...]]:
        """Return what installing sets of packages in an empty system takes, newest versions.

        That is Debian's minimal system ("minbase" of debootstrap(8)), the packages and what
        they depend on, without recommendations.

        Raises
        ------
        MirrorSilent, UntrustedLists, MissingDependency
            As of `refresh`.
        HarnessError
            If a package does not exist or cannot be installed beside the others.
        """
        with locked(self.root / "lock"):
            errors = self._update([suite])
            if errors:
                raise self._refused(errors[0])
            return {part: self._closure(suite, names) for part, names in wanted.items()}

    def download_unlisted(self, package: Package, target: Path) -> None:
        """Fetch a file that no signed list names any more, to take its hash for the lock.

        Raises
        ------
        PackageGone, MirrorSilent
            As their names say.
        """
        self._fetch(package, (), target, None)

    def _refused(self, reason: str) -> HarnessError:
        if "no longer has a Release file" in reason:
            return UntrustedLists(
                f"{reason} Without it the newest kernels would be older ones",
                hint="try again later, or another mirror; if Debian has moved the suite to its "
                f"archive of old releases, remove {self.root / 'state'}",
            )
        if _BROKEN_TRUST.search(reason):
            return UntrustedLists(
                f"the package lists of {self.mirror} cannot be trusted: {reason}",
                hint="the mirror may be in the middle of an update: try again, or another one",
            )
        return MirrorSilent(
            f"the Debian mirror {self.mirror} does not answer: {reason}",
            hint=f"check the network, or set {MIRROR_VARIABLE} to another mirror",
        )

    def _fetch(
        self,
        package: Package,
        hashes: tuple[str, ...],
        target: Path,
        progress: Progress | None,
    ) -> None:
        report = progress or (lambda _text, _fraction: None)
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".fetching-") as scratch:
            partial = Path(scratch) / "file"
            errors = Path(scratch) / "errors"
            command = self._apt(_HELPER, "download-file", self.url(package), partial, *hashes)
            with errors.open("wb") as stream:
                process = spawn(command, stderr=stream)
                try:
                    self._watch(process, partial, package, report)
                finally:
                    stop(process)
            if process.returncode != 0:
                raise self._explained(package, errors.read_text(errors="replace"))
            _keep(partial, target)
        report(package.name, 1.0)

    def _watch(
        self,
        process: subprocess.Popen[bytes],
        partial: Path,
        package: Package,
        report: Progress,
    ) -> None:
        deadline = time.monotonic() + _FILE_LIMIT_S
        while True:
            try:
                process.wait(timeout=0.2)
            except subprocess.TimeoutExpired:
                size = partial.stat().st_size if partial.exists() else 0
                report(package.name, min(1.0, size / max(1, package.size)))
                if time.monotonic() > deadline:
                    raise MirrorSilent(
                        f"{package.name} did not arrive within {_FILE_LIMIT_S:g} s"
                    ) from None
            else:
                return

    def _explained(self, package: Package, errors: str) -> HarnessError:
        if "Hash Sum mismatch" in errors or "unexpected size" in errors:
            return _mismatch(package, self.url(package))
        reason = _errors(errors)[0]
        if re.search(r"\b(404|410)\b|File not found|No such file", reason):
            return PackageGone(f"{package.name} {package.version} is not on {self.mirror}")
        if "No space left" in errors:
            return HarnessError(f"cannot store {package.name}: no space left on device")
        return self._refused(reason)

    def _update(self, suites: Iterable[str]) -> tuple[str, ...]:
        """Run ``apt-get update``; return the errors it names, none on success."""
        lines = []
        for suite in suites:
            base = self.security if _is_security(suite) else self.mirror
            lines.append(f"deb [arch=amd64 signed-by={self.keyring}] {base} {suite} main\n")
        for part in ("state/lists/partial", "cache/archives/partial"):
            (self.root / part).mkdir(parents=True, exist_ok=True)
        write_text(self.root / "sources.list", "".join(lines))
        command = self._apt(require("apt-get", "apt"), "-q", "update")
        done = run(command, timeout=_UPDATE_LIMIT_S, check=False)
        return () if done.status == 0 else _errors(done.stderr.decode(errors="replace"))

    def _listed_packages(self, flavour: str) -> Iterator[Package]:
        form = "$(CREATED_BY)|$(RELEASE)|$(FILENAME)"
        targets = run(self._apt("apt-get", "indextargets", "--format", form), timeout=60).text()
        for line in targets.splitlines():
            kind, suite, filename = line.split("|", 2)
            if kind == "Packages":
                text = run(self._apt(_HELPER, "cat-file", filename), timeout=120).text()
                yield from packages_in(text, suite, flavour)

    def _closure(self, suite: str, names: Sequence[str]) -> tuple[Package, ...]:
        words = ["install", "--print-uris", "--yes", "-qq", "--no-install-recommends"]
        words += ["--option=Acquire::ForceHash=SHA256", *_MINIMAL, *names]
        done = run(self._apt(require("apt-get", "apt"), *words), timeout=60, check=False)
        if done.status:
            reason = _errors(done.stderr.decode(errors="replace"))[0]
            raise HarnessError(f"{suite} of {self.mirror}: {reason}")
        return tuple(
            package_from({**_uri_fields(line, self.mirror), "suite": suite})
            for line in done.text().splitlines()
        )

    def _apt(self, program: str, *words: str | os.PathLike[str]) -> list[str]:
        configuration = self.root / "apt.conf"
        write_text(self.root / "status", "")
        write_text(configuration, _CONFIGURATION)
        # Words of the command line, since strings of a configuration file have no escapes.
        places = (f"--option={name}={self.root / place}" for name, place in _PLACES.items())
        return [
            program,
            f"--config-file={configuration}",
            *places,
            *(os.fspath(word) for word in words),
        ]


def _keep(partial: Path, target: Path) -> None:
    if partial.is_symlink():  # how apt "fetches" from a file: mirror
        original, partial = partial.resolve(), partial.with_name(f"{partial.name}.copy")
        shutil.copyfile(original, partial)
    replace_file(partial, target)


def _uri_fields(line: str, mirror: str) -> dict[str, object]:
    """Return the fields of a package as ``apt-get --print-uris`` prints it.

    That is 'URI' NAME_VERSION_ARCHITECTURE.deb SIZE SHA256:HASH, percent signs quoting.
    """
    uri, file, size, digest = line.split()
    name, version, _ = unquote(file).rsplit("_", 2)
    return {
        "name": name,
        "version": version,
        "sha256": digest.removeprefix("SHA256:"),
        "size": int(size),
        "filename": unquote(uri.strip("'").removeprefix(f"{mirror}/")),
    }


def _is_security(suite: str) -> bool:
    return suite.endswith("-security")


def _errors(said: str) -> tuple[str, ...]:
    """Return apt's errors, at least one."""
    lines = tuple(line[2:].strip() for line in said.splitlines() if line.startswith("E:"))
    return lines or ((said.strip().splitlines() or ["no error message"])[-1],)


def _mismatch(package: Package, url: str) -> HashMismatch:
    return HashMismatch(
        f"{url} is not the expected file: its SHA-256 differs from {package.sha256}",
        hint="the mirror is broken or was tampered with; try another mirror",
    )
