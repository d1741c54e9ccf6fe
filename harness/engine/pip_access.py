"""The pip settings of this machine, for image builds that install packages: index, proxy, CA bundle."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: the options that decide where packages come from, and which servers are trusted
_LISTS = ("extra-index-url", "find-links", "trusted-host")
_OPTIONS = ("index-url", "proxy", "timeout", "retries", *_LISTS)
#: in the order of their precedence, after pip's own `cert`
_BUNDLE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
_SYSTEM_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, Red Hat
    "/etc/ssl/ca-bundle.pem",  # SUSE
    "/etc/ssl/cert.pem",  # Alpine, macOS
)
_WHERE = "/build"

HINT = (
    "the build installs packages with pip: set PIP_INDEX_URL to an index that containers can reach, HTTPS_PROXY to the "
    "proxy, and PIP_CERT to the CA bundle of a proxy that intercepts TLS"
)


def pip_files() -> dict[str, str]:
    """Return `pip.conf` and `ca-bundle.pem` for a build context: file name to text.

    The address of the index may contain credentials. The bundle is pip's, else the system's, else empty.
    """
    configured = _configured()
    bundle = _bundle(configured.get("cert", ""))
    return {"pip.conf": _pip_conf(configured, trusts_bundle=bool(bundle)), "ca-bundle.pem": bundle}


def _configured() -> dict[str, str]:
    """Return pip's settings by option. Without pip in this Python, they come from the environment."""
    output = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    return parsed(output, os.environ)


def parsed(output: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return pip's settings by option.

    `install` takes precedence over `global`, and the environment over both, as in pip.

    :param output: of `pip config list`: lines of `section.option='value'`, and `:env:` for the environment.
    """
    sections: dict[str, dict[str, str]] = {"global": {}, "install": {}}
    for line in output.splitlines():
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
            # the build has no access to folders of this machine
            values = [value for value in values if value.startswith(("https://", "http://"))]
        if values:
            lines.append(f"{option} = " + "\n    ".join(values))
    return "\n".join(lines) + "\n"


def _bundle(configured: str) -> str:
    names = [configured, *(os.environ.get(name, "") for name in _BUNDLE_VARIABLES), *_SYSTEM_BUNDLES]
    for name in filter(None, names):
        path = Path(name)
        if path.is_file() and os.access(path, os.R_OK):
            return path.read_text(encoding="utf-8", errors="replace")
    return ""
