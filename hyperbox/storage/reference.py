"""Names of images as people write them: ``debian``, ``localhost:5000/team/app:1.2@sha256:...``.

Pure. Grammar and normalisation follow the package `reference` of the distribution project
(regexp.go, normalize.go): other tools take the same text for the same image.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass, replace

from hyperbox.errors import ConfigError, ImageError
from hyperbox.storage.digests import check_digest

__all__ = ["Reference", "is_repository", "is_tag", "parse_reference"]

_HUB = "docker.io"
_HUB_ENDPOINT = "registry-1.docker.io"
_HUB_OLD = "index.docker.io"
_OFFICIAL = "library"  # where the Hub keeps images whose names have no slash

_LABEL = "[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DOMAIN = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]{{1,5}})?")
_PART = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_IDENTIFIER = re.compile("[a-f0-9]{64}")  # an image's id would look like a name
_MOST_NAME = 255


@dataclass(frozen=True)
class Reference:
    """Where an image is and which one it is; with a digest, the tag is only a remark.

    Parameters
    ----------
    registry
        Host and port, as people write them.
    tag, digest
        One of them is not empty.
    """

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    def __str__(self) -> str:
        """Return it in full, as `parse_reference` takes it."""
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"

    @property
    def name(self) -> str:
        """Registry and repository."""
        return f"{self.registry}/{self.repository}"

    @property
    def familiar(self) -> str:
        """The shortest text that means the same."""
        short = self.repository if self.registry == _HUB else self.name
        if self.registry == _HUB and self.repository.startswith(f"{_OFFICIAL}/"):
            rest = short.removeprefix(f"{_OFFICIAL}/")
            short = rest if "/" not in rest else short
        return short + str(self).removeprefix(self.name)

    @property
    def endpoint(self) -> str:
        """Host and port to connect to."""
        return _HUB_ENDPOINT if self.registry == _HUB else self.registry

    @property
    def target(self) -> str:
        """What the registry is asked for: the digest, else the tag."""
        return self.digest or self.tag

    @property
    def is_loopback(self) -> bool:
        """Whether the registry is on this machine, so that nobody listens on the way."""
        host = self.registry.rpartition("]")[0].lstrip("[") or self.registry.partition(":")[0]
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host.lower() == "localhost"

    def at(self, digest: str) -> Reference:
        """Return the same name with a digest."""
        return replace(self, digest=digest)


def is_tag(text: str) -> bool:
    """Whether it can be a tag."""
    return _TAG.fullmatch(text) is not None


def is_repository(text: str) -> bool:
    """Whether it can be the name of a repository in a registry."""
    return len(text) <= _MOST_NAME and _REPOSITORY.fullmatch(text) is not None


def parse_reference(text: str) -> Reference:
    """Parse the name of an image; without tag and digest the tag is ``latest``.

    Raises
    ------
    ConfigError
        If it is not one.
    """
    named, _, digest = text.partition("@")
    domain, rest = _split_domain(named)
    repository, colon, tag = rest.partition(":")
    if not colon and not digest:
        tag = "latest"
    if domain == _HUB and "/" not in repository:
        repository = f"{_OFFICIAL}/{repository}"
    wrong = _fault(named, domain, repository, tag, has_tag=bool(colon))
    if not wrong and "@" in text:
        try:
            check_digest(digest, "the name")
        except ImageError:
            wrong = "its digest is not sha256 or sha512"
    if wrong:
        raise ConfigError(
            f"{text[:300]!r} is not the name of an image: {wrong}",
            hint="[REGISTRY[:PORT]/]NAME[:TAG][@sha256:DIGITS]",
        )
    return Reference(domain, repository, tag, digest)


def _split_domain(text: str) -> tuple[str, str]:
    """Return registry and rest: a first part is a registry if it cannot be a user of the Hub."""
    first, slash, rest = text.partition("/")
    is_domain = "." in first or ":" in first or first == "localhost" or first != first.lower()
    if not slash or not is_domain:
        return _HUB, text
    return (_HUB if first == _HUB_OLD else first), rest


def _fault(named: str, domain: str, repository: str, tag: str, *, has_tag: bool) -> str:
    """Return what is wrong; empty if nothing is."""
    faults = (
        (_IDENTIFIER.fullmatch(named), "64 hexadecimal digits are an image's id"),
        (not _DOMAIN.fullmatch(domain), "the registry is not a host with an optional port"),
        (repository != repository.lower(), "repositories are in lower case"),
        (not is_repository(repository), f"{repository[:80]!r} cannot be a repository"),
        (
            (has_tag or tag) and not is_tag(tag),
            "its tag is not up to 128 letters, digits, '_', '.' and '-'",
        ),
    )
    return next((text for is_wrong, text in faults if is_wrong), "")
