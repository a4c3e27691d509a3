from __future__ import annotations

import contextlib
import functools
import hashlib
import http.server
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from hyperbox.errors import ConfigError, HarnessError, MissingDependency
from hyperbox.harness.lab.apt_sources import (
    Source,
    machine_sources,
    main_mirror,
    security_mirror,
)
from hyperbox.harness.lab.debian_archive import (
    DebianArchive,
    HashMismatch,
    MirrorSilent,
    PackageGone,
    UntrustedLists,
    debian_mirror,
)
from hyperbox.harness.lab.kernel_matrix import Package

FLAVOUR = "cloud-amd64"
NAME = "linux-image-6.12.1-cloud-amd64"
NOBODY = "http://127.0.0.1:9/debian"  # port 9: nothing listens

DEB822 = """\
# a comment
Types: deb deb-src
URIs: http://mirror.example/debian
Suites: bookworm
 bookworm-updates
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .

Types: deb
URIs: http://mirror.example/debian-security/
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: trixie
Components: main
"""


def test_both_formats_of_the_machines_sources_are_read(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text(
        """\
# deb http://old.example/debian bookworm main
deb [arch=amd64 signed-by=/x.gpg] http://vendor.example/debian bookworm stable
deb-src http://mirror2.example/debian bookworm main
deb http://mirror2.example/debian/ trixie main non-free # why
"""
    )
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d/debian.sources").write_text(DEB822)
    (tmp_path / "sources.list.d/debian.sources.save").write_text(DEB822)
    found = machine_sources(tmp_path)
    assert found == (
        Source("http://vendor.example/debian", ("bookworm",), ("stable",)),
        Source("http://mirror2.example/debian/", ("trixie",), ("main", "non-free")),
        Source(
            "http://mirror.example/debian", ("bookworm", "bookworm-updates"), ("main", "contrib")
        ),
        Source("http://mirror.example/debian-security/", ("bookworm-security",), ("main",)),
    )
    assert main_mirror(found) == "http://mirror2.example/debian"
    assert security_mirror(found) == "http://mirror.example/debian-security"


def test_debian_wins_over_a_vendor_that_uses_its_suite_names() -> None:
    vendor = Source("https://apt.vendor.example", ("bookworm",), ("main",))
    debian = Source("http://mirror.example/debian", ("stable",), ("main",))
    assert main_mirror([vendor, debian]) == "http://mirror.example/debian"
    assert main_mirror([vendor]) == "https://apt.vendor.example"
    assert main_mirror([Source("http://x.example/ubuntu", ("noble",), ("main",))]) is None
    assert main_mirror([]) is None
    assert security_mirror([debian]) is None


def test_the_users_choice_of_mirror_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYPERBOX_DEBIAN_MIRROR", "http://env.example/debian/")
    assert debian_mirror() == "http://env.example/debian"
    assert debian_mirror("http://arg.example/debian") == "http://arg.example/debian"


@pytest.mark.parametrize(
    "mirror",
    [
        "arg.example/debian",
        "http://[::1",
        "http://x.example/debian trixie main\ndeb [trusted=yes] http://evil.example/debian",
        "http://x.example/#",
        "ftp://x.example/debian",
        "http://\ud800/",
    ],
)
def test_what_is_not_a_url_of_a_mirror_is_refused(mirror: str) -> None:
    with pytest.raises(ConfigError, match="is not a URL"):
        debian_mirror(mirror)


def test_a_mirror_may_be_an_address() -> None:
    assert debian_mirror("http://[::1]:8080/debian") == "http://[::1]:8080/debian"


def test_sources_that_cannot_be_read_or_used_are_passed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "sources.list")
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list.d/x.list").write_text("deb http://[::1 trixie main\n")
    found = machine_sources(tmp_path)
    assert found == (Source("http://[::1", ("trixie",), ("main",)),)
    assert main_mirror(found) is None


@dataclass(frozen=True)
class Repository:
    """A signed Debian repository of one package, and the key that signed it."""

    directory: Path
    keyring: Path
    home: Path

    def publish(self, suite: str, body: bytes, *, digest: str = "", sign: bool = True) -> Package:
        """Put a package into the pool and a signed list of it into `suite`."""
        filename = f"pool/main/l/{NAME}_{suite}.deb"
        top = self.directory / ("debian-security" if suite.endswith("-security") else "debian")
        file = top / filename
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(body)
        package = Package(
            NAME, "6.12.1-1", hashlib.sha256(body).hexdigest(), len(body), suite, filename
        )
        listing = (
            f"Package: {NAME}\nVersion: 6.12.1-1\nArchitecture: amd64\nFilename: {filename}\n"
            f"Size: {len(body)}\nSHA256: {package.sha256}\nDescription: kernel\n\n"
        ).encode()
        release = top / "dists" / suite
        lists = release / "main/binary-amd64/Packages"
        lists.parent.mkdir(parents=True, exist_ok=True)
        lists.write_bytes(listing)
        digest = digest or hashlib.sha256(listing).hexdigest()
        text = (
            f"Origin: Test\nSuite: {suite}\nCodename: {suite}\n"
            "Date: Sat, 01 Jan 2022 00:00:00 UTC\nArchitectures: amd64\nComponents: main\n"
            f"SHA256:\n {digest} {len(listing)} main/binary-amd64/Packages\n"
        )
        (release / "Release").write_text(text)
        if sign:
            self.gpg("--yes", "--clearsign", "-o", release / "InRelease", release / "Release")
        return package

    def gpg(self, *words: str | Path) -> None:
        command = ["gpg", "--homedir", str(self.home), "--batch", "--quiet", "--passphrase", ""]
        subprocess.run([*command, *map(str, words)], check=True, capture_output=True)


def with_key(directory: Path, name: str) -> Repository:
    home = directory / f"gpg-{name}"
    home.mkdir(mode=0o700)
    repository = Repository(directory, directory / f"{name}.gpg", home)
    repository.gpg("--quick-gen-key", f"{name} <{name}@example.org>", "ed25519", "sign", "never")
    repository.gpg("-o", repository.keyring, "--export")
    repository.keyring.chmod(0o644)
    return repository


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    tmp_path.chmod(0o755)
    try:
        yield with_key(tmp_path, "good")
    finally:
        for home in tmp_path.glob("gpg-*"):
            subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its base's name
        pass


@contextlib.contextmanager
def served(directory: Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/debian"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def mirror(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with served(repository.directory) as url:
        yield url


def archive_of(repository: Repository, mirror: str) -> DebianArchive:
    root = repository.directory / 'apt\'s "root", 50% {of} all'
    return DebianArchive(root, mirror=mirror, keyring=repository.keyring)


def test_signed_lists_and_files_arrive(repository: Repository, mirror: str) -> None:
    published = repository.publish("trixie", b"kernel" * 1000)
    archive = archive_of(repository, mirror)
    assert archive.known() is None
    assert archive.age() == float("inf")
    steps: list[tuple[str, float]] = []
    # the mirror has no security archive: that suite is left out
    suites = ["trixie", "trixie-security"]
    found = archive.refresh(suites, FLAVOUR, lambda text, done: steps.append((text, done)))
    assert found == (published,)
    assert archive.left_out == ("trixie-security",)
    assert archive.known() == found
    assert archive.age() < 600
    assert steps[-1][1] == 1.0
    assert DebianArchive(archive.root, mirror=NOBODY).known() is None

    target = repository.directory / "debs/x.deb"
    archive.download(published, target)
    assert target.read_bytes() == b"kernel" * 1000
    assert list(target.parent.iterdir()) == [target]


SECURITY = ("trixie-security", "bookworm-security")


def cut(path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda suite: cut(suite / "main/binary-amd64/Packages", -30), UntrustedLists),
        (lambda suite: (suite / "main/binary-amd64/Packages").unlink(), MirrorSilent),
        (lambda suite: cut(suite / "InRelease", 0), UntrustedLists),
        (lambda suite: cut(suite / "InRelease", 10), UntrustedLists),
        (lambda suite: cut(suite / "InRelease", -50), UntrustedLists),
        (lambda suite: (suite / "InRelease").unlink(), UntrustedLists),
    ],
    ids=["cut list", "no list", "empty", "cut early", "cut late", "unsigned"],
)
def test_a_damaged_security_suite_is_never_left_out(
    repository: Repository,
    mirror: str,
    damage: Callable[[Path], None],
    error: type[HarnessError],
) -> None:
    for suite in ("trixie", *SECURITY):
        repository.publish(suite, b"kernel")
    archive = archive_of(repository, mirror)
    assert len(archive.refresh(["trixie", *SECURITY], FLAVOUR)) == 3
    assert archive.left_out == ()
    damage(repository.directory / "debian-security/dists/trixie-security")
    with contextlib.suppress(error):  # apt asks only for what has changed
        assert len(archive.refresh(["trixie", *SECURITY], FLAVOUR)) == 3
    assert archive.left_out == ()
    assert len(archive.known() or ()) == 3  # the last good lists stay
    new = DebianArchive(repository.directory / "new", mirror=mirror, keyring=repository.keyring)
    with pytest.raises(error, match="trixie-security"):
        new.refresh(["trixie", *SECURITY], FLAVOUR)
    assert new.left_out == ()
    assert new.known() is None


def test_a_security_suite_that_has_gone_is_not_left_out(
    repository: Repository, mirror: str
) -> None:
    for suite in ("trixie", SECURITY[0]):
        repository.publish(suite, b"kernel")
    archive = archive_of(repository, mirror)
    archive.refresh(["trixie", *SECURITY], FLAVOUR)
    assert archive.left_out == (SECURITY[1],)  # never was there
    archive.refresh(["trixie", *SECURITY], FLAVOUR)
    shutil.rmtree(repository.directory / "debian-security")
    with pytest.raises(UntrustedLists, match="no longer has a Release") as caught:
        archive.refresh(["trixie", *SECURITY], FLAVOUR)
    assert str(archive.root) in caught.value.hint
    again = archive_of(repository, mirror)
    assert len(again.known() or ()) == 2
    assert again.left_out == (SECURITY[1],)


def test_lists_of_the_future_are_not_fresh(repository: Repository, mirror: str) -> None:
    repository.publish("trixie", b"kernel")
    archive = archive_of(repository, mirror)
    archive.refresh(["trixie"], FLAVOUR)
    ahead = time.time() + 3600
    os.utime(archive.root / "packages.json", (ahead, ahead))
    assert archive.age() == float("inf")


def test_the_machines_own_lists_are_not_touched(repository: Repository, mirror: str) -> None:
    def state() -> list[tuple[str, int]]:
        lists = Path("/var/lib/apt/lists")
        return sorted((path.name, path.stat().st_mtime_ns) for path in lists.iterdir())

    before = state()
    repository.publish("trixie", b"kernel")
    archive_of(repository, mirror).refresh(["trixie"], FLAVOUR)
    assert state() == before


def test_unsigned_lists_are_refused(repository: Repository, mirror: str) -> None:
    repository.publish("trixie", b"kernel", sign=False)
    archive = archive_of(repository, mirror)
    with pytest.raises(UntrustedLists, match="not signed"):
        archive.refresh(["trixie"], FLAVOUR)
    assert archive.known() is None


def test_lists_signed_by_a_stranger_are_refused(repository: Repository, mirror: str) -> None:
    with_key(repository.directory, "stranger").publish("trixie", b"kernel")
    archive = archive_of(repository, mirror)
    with pytest.raises(UntrustedLists, match="not signed"):
        archive.refresh(["trixie"], FLAVOUR)
    assert archive.known() is None


def test_lists_changed_after_signing_are_refused(repository: Repository, mirror: str) -> None:
    repository.publish("trixie", b"kernel", digest="0" * 64)
    with pytest.raises(UntrustedLists, match="cannot be trusted"):
        archive_of(repository, mirror).refresh(["trixie"], FLAVOUR)


def test_no_keys_is_a_missing_dependency(tmp_path: Path) -> None:
    archive = DebianArchive(tmp_path, mirror=NOBODY, keyring=tmp_path / "absent.gpg")
    with pytest.raises(MissingDependency, match="no keys"):
        archive.refresh(["trixie"], FLAVOUR)


def test_another_file_than_the_named_one_is_refused(repository: Repository, mirror: str) -> None:
    published = repository.publish("trixie", b"kernel")
    archive = archive_of(repository, mirror)
    target = repository.directory / "debs/x.deb"
    with pytest.raises(HashMismatch, match="is not the expected file") as caught:
        archive.download(replace(published, sha256="1" * 64), target)
    assert "\n" not in caught.value.message
    assert list(target.parent.iterdir()) == []


def test_an_absent_file_is_told_apart_from_a_silent_mirror(
    repository: Repository, mirror: str
) -> None:
    gone = replace(repository.publish("trixie", b"kernel"), filename="pool/none.deb")
    target = repository.directory / "debs/x.deb"
    with pytest.raises(PackageGone, match=r"6\.12\.1-1 is not on"):
        archive_of(repository, mirror).download(gone, target)
    with pytest.raises(MirrorSilent, match="does not answer") as caught:
        archive_of(repository, NOBODY).download(gone, target)
    assert "\n" not in caught.value.message
    assert "HYPERBOX_DEBIAN_MIRROR" in caught.value.hint
    assert list(target.parent.iterdir()) == []


def test_a_mirror_on_disk_works_and_is_checked(repository: Repository) -> None:
    published = repository.publish("trixie", b"kernel")
    archive = archive_of(repository, f"file://{repository.directory}/debian")
    target = repository.directory / "debs/x.deb"
    archive.download(published, target)
    assert target.read_bytes() == b"kernel"
    assert not target.is_symlink()
    with pytest.raises(HashMismatch):
        archive.download(replace(published, sha256="1" * 64), target)
    with pytest.raises(PackageGone):
        archive.download(replace(published, filename="pool/none.deb"), target)
