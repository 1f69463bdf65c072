"""Where the API server is, and as whom we come: a pod's account, or what `KUBECONFIG` says.

A pod's account is three files and two variables, so a pod needs no client for it: the official one takes 0.4 s to
import, which every `publish` would pay while a visitor waits, and 75 MB of an image. A kubeconfig is read by the
official client, which knows its many ways to log in.

Source: https://kubernetes.io/docs/tasks/run-application/access-api-from-pod/, *Directly accessing the REST API*.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from workflows.errors import ConfigError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its account."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One way to one API server.

    Args:
        url: Without a slash at the end.
        tls: What its certificate is checked against, and our own certificate where we have one.
        authorization: The header of this moment; empty where our certificate says who we are.
    """

    url: str
    tls: ssl.SSLContext
    authorization: Callable[[], str]


def find() -> Access:
    """The way in that this process has: a pod's account, else what `KUBECONFIG` or ``~/.kube/config`` says.

    Raises:
        ConfigError: There is none, or it cannot be read.
    """
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "")
    if host and port and (ACCOUNT / "token").exists():
        return of_account(ACCOUNT, f"https://{f'[{host}]' if ':' in host else host}:{port}")
    return _of_kubeconfig()


def of_account(folder: Path, url: str) -> Access:
    """The way in of a pod's account.

    Args:
        folder: Holds ``token`` and ``ca.crt``.
        url: The API server's.

    Raises:
        ConfigError: It cannot be read.
    """

    def authorization() -> str:
        # Kubernetes renews the file long before a token ends. Read each time, none is ever an old one.
        return f"Bearer {_read(folder / 'token').strip()}"

    authorization()
    return Access(url=url, tls=_tls(str(folder / "ca.crt")), authorization=authorization)


def _of_kubeconfig() -> Access:
    try:
        from kubernetes import client, config  # noqa: PLC0415  # no pod has it, and importing it takes 0.4 s
    except ImportError as error:
        raise ConfigError(detail="no account of a pod, and the package `kubernetes` is not installed") from error
    known = client.Configuration()
    # Said, because the client looks at it once, when it is imported.
    path = os.environ.get("KUBECONFIG") or None
    try:
        config.load_kube_config(config_file=path, client_configuration=known)  # type: ignore[no-untyped-call]
    except (config.ConfigException, OSError) as error:
        raise ConfigError(detail=f"no account of a pod, and no kubeconfig: {error}") from error

    def authorization() -> str:
        # Asked each time: the client renews what its log-in program gave it.
        return str(known.get_api_key_with_prefix("BearerToken") or "")

    tls = _tls(known.ssl_ca_cert, verify=known.verify_ssl)
    if known.cert_file:
        tls.load_cert_chain(known.cert_file, known.key_file)
    return Access(url=str(known.host).rstrip("/"), tls=tls, authorization=authorization)


def _tls(authority: str | None, *, verify: bool = True) -> ssl.SSLContext:
    try:
        tls = ssl.create_default_context(cafile=authority or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(detail=f"the API server's authority {authority}: {error}") from error
    if not verify:
        # The kubeconfig says so in as many words (insecure-skip-tls-verify).
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
    return tls


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(detail=f"{path}: {error}") from error
