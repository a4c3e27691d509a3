"""Who we are to a registry: Docker's ``config.json`` and credential helpers.

Follows docker-login(1) and the protocol of docker-credential-helpers; files of podman and skopeo
(containers-auth.json(5)) have the same form, with keys that may name a repository, too.
"""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hyperbox.errors import ConfigError, ImageError
from hyperbox.foreign import read_json
from hyperbox.processes import require, run
from hyperbox.storage.documents import parse_document
from hyperbox.storage.reference import Reference

__all__ = ["Credential", "Credentials", "credential_files", "find_credential"]

_HUB = "docker.io"
_HUB_KEY = "https://index.docker.io/v1/"
_HELPER = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TOKEN_USER = "<token>"  # noqa: S105 - what helpers call an identity token's user
_ABSENT = "credentials not found"  # how helpers begin to say that they have none
_PATIENCE_S = 60.0  # a helper may ask the user


@dataclass(frozen=True)
class Credential:
    """A user with a password, or an identity token; never shown."""

    user: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)

    @property
    def basic(self) -> str:
        """Value of an ``Authorization`` header of scheme Basic."""
        return f"Basic {base64.b64encode(f'{self.user}:{self.password}'.encode()).decode()}"


class Credentials:
    """Where credentials are looked up: files in order, each with its helpers."""

    def __init__(self, files: tuple[Path, ...] | None = None) -> None:
        self._files = credential_files() if files is None else files

    def find(self, reference: Reference) -> Credential | None:
        """Return the first credential for an image's registry; None if there is none.

        Raises
        ------
        ConfigError
            If a file or a helper's answer is damaged, or a helper is missing.
        """
        for path in self._files:
            if path.is_file():
                document = read_json(path, refusal=ConfigError)
                found = find_credential(document, reference, os.fspath(path))
                if isinstance(found, str):
                    found = _ask_helper(found, _server(reference))
                if found is not None:
                    return found
        return None


def credential_files() -> tuple[Path, ...]:
    """Return the files that tools of the kind read: those that variables name, else the usual."""
    named = [os.environ.get("REGISTRY_AUTH_FILE", "")]
    if runtime := os.environ.get("XDG_RUNTIME_DIR", ""):
        named.append(os.path.join(runtime, "containers/auth.json"))  # noqa: PTH118
    docker = os.environ.get("DOCKER_CONFIG", "")
    home = os.environ.get("HOME", "")
    if docker or home:
        named.append(os.fspath(Path(docker or Path(home, ".docker"), "config.json")))
    return tuple(Path(one) for one in named if one)


def find_credential(document: Any, reference: Reference, where: str) -> Credential | str | None:
    """Return what a file has for an image: a credential, or the name of the helper to ask. Pure.

    Parameters
    ----------
    document
        The file's content.
    where
        The file, for errors.

    Raises
    ------
    ConfigError
        If it is not what Docker writes.
    """
    helpers = _table(document, "credHelpers", where)
    keys = tuple(_keys(reference))
    for key in keys:
        if key in helpers:
            return _helper(helpers[key], where)
    store = document.get("credsStore")
    if store:
        return _helper(store, where)
    entries = _table(document, "auths", where)
    by_host = {_bare(key): entry for key, entry in entries.items()} | dict(entries)
    for key in keys:
        if key in by_host:
            return _credential(by_host[key], f"{where}: {key}")
    return None


def _keys(reference: Reference) -> Iterator[str]:
    """Return the names that an entry may have, the most specific one first."""
    parts = reference.name.split("/")
    for depth in range(len(parts), 0, -1):
        yield "/".join(parts[:depth])
    if reference.registry == _HUB:
        yield from (_HUB_KEY, "index.docker.io")


def _server(reference: Reference) -> str:
    return _HUB_KEY if reference.registry == _HUB else reference.registry


def _bare(key: str) -> str:
    """Return the host of a key that is a URL, as old versions of Docker wrote it."""
    _, scheme, rest = key.partition("://")
    return rest.partition("/")[0] if scheme else key.removesuffix("/")


def _table(document: Any, name: str, where: str) -> Mapping[str, Any]:
    found = document.get(name, {}) if isinstance(document, dict) else None
    if not isinstance(found, dict):
        raise ConfigError(f"{where}: not a file of registry credentials")
    return found


def _helper(name: Any, where: str) -> str:
    if not isinstance(name, str) or not _HELPER.fullmatch(name):
        raise ConfigError(f"{where}: {str(name)[:80]!r} is not the name of a credential helper")
    return name


def _credential(entry: Any, where: str) -> Credential | None:
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: an object is expected")
    texts = {name: entry.get(name) or "" for name in ("auth", "username", "password")}
    token = entry.get("identitytoken") or ""
    if not all(isinstance(text, str) for text in (*texts.values(), token)):
        raise ConfigError(f"{where}: a credential is not a text")
    user, password = texts["username"], texts["password"]
    if texts["auth"]:
        try:
            pair = base64.b64decode(texts["auth"], validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise ConfigError(f"{where}: 'auth' is not base64 of USER:PASSWORD") from None
        user, colon, password = pair.rstrip("\0").partition(":")
        if not colon:
            raise ConfigError(f"{where}: 'auth' is not base64 of USER:PASSWORD")
    if not (user or password or token):
        return None
    return Credential(user, password, token)


def _ask_helper(name: str, server: str) -> Credential | None:
    """Run a credential helper; its output is in no error."""
    program = require(f"docker-credential-{name}", f"golang-docker-credential-helpers for {name}")
    done = run([program, "get"], data=server.encode(), timeout=_PATIENCE_S, check=False)
    if done.status != 0:
        if done.text().lower().startswith(_ABSENT):
            return None
        raise ConfigError(
            f"docker-credential-{name} ended with status {done.status} for {server}",
            hint=f"try: echo {server} | docker-credential-{name} get",
        )
    try:
        answer = parse_document(done.stdout, "its answer")
        user, secret = answer.text("Username"), answer.text("Secret")
    except ImageError:  # which might quote it
        raise ConfigError(f"docker-credential-{name} answered with something else") from None
    if user == _TOKEN_USER:
        return Credential(identity_token=secret)
    return Credential(user, secret)
