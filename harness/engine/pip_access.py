"""How this machine's pip reaches its packages, for a build that must reach them in the same way."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: of what pip can be configured with, what decides where packages come from and whom to trust
_LISTS = ("extra-index-url", "find-links", "trusted-host")
_OPTIONS = ("index-url", "proxy", "timeout", "retries", *_LISTS)
#: in the order in which they win, after pip's own `cert`
_BUNDLE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
_SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian and its kin
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora and its kin
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # Alpine, macOS
)
_WHERE = "/build"

HINT = (
    "the build installs packages with pip: set PIP_INDEX_URL to an index that containers reach, PIP_CERT to the CA "
    "bundle of a proxy that opens TLS, HTTPS_PROXY to the proxy"
)


def pip_files() -> dict[str, str]:
    """Return `pip.conf` and `ca-bundle.pem` for a build context; the index's address may hold credentials.

    The bundle is the one that pip uses here, else the system's; it is empty where there is none.
    """
    configured = _configured()
    bundle = _bundle(configured.get("cert", ""))
    return {"pip.conf": _pip_conf(configured, trusts_bundle=bool(bundle)), "ca-bundle.pem": bundle}


def _configured() -> dict[str, str]:
    """Return pip's settings by option; the environment is read also where this Python has no pip."""
    said = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    return parsed(said, os.environ)


def parsed(said: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Read what `pip config list` says: lines of `section.option='value'`, and `:env:` for the environment.

    What is set for `install` wins over `global`, and the environment over both, as in pip.
    """
    sections: dict[str, dict[str, str]] = {"global": {}, "install": {}}
    for line in said.splitlines():
        name, _, value = line.partition("=")
        section, _, option = name.partition(".")
        if section in sections:
            try:
                sections[section][option] = str(ast.literal_eval(value))
            except (ValueError, SyntaxError):
                continue
    variables = {
        name.removeprefix("PIP_").lower().replace("_", "-"): value
        for name, value in environment.items()
        if name.startswith("PIP_")
    }
    return sections["global"] | sections["install"] | variables


def _pip_conf(configured: Mapping[str, str], *, trusts_bundle: bool) -> str:
    lines = ["[global]"]
    if trusts_bundle:
        lines.append(f"cert = {_WHERE}/ca-bundle.pem")
    for option in _OPTIONS:
        values = configured.get(option, "").split()
        if option in {"index-url", "extra-index-url", "find-links"}:
            # a folder of this machine is not there in the build
            values = [each for each in values if each.startswith(("https://", "http://"))]
        if values:
            lines.append(f"{option} = " + "\n    ".join(values))
    return "\n".join(lines) + "\n"


def _bundle(configured: str) -> str:
    named = [configured, *(os.environ.get(name, "") for name in _BUNDLE_VARIABLES), *_SYSTEM_BUNDLES]
    for each in filter(None, named):
        path = Path(each)
        if path.is_file() and os.access(path, os.R_OK):
            return path.read_text(encoding="utf-8", errors="replace")
    return ""
