"""How a visitor's server starts: one mixin for DockerSpawner and KubeSpawner alike.

It is BinderHub's way (the visitor has no account, a token of the launch opens the server) with one thing added: **no
image starts that the catalogue does not hold by digest**, whoever asks.

Source: ../shared/reference/binderhub.md 5.5; BinderHub's ``binderspawner_mixin.py``.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from catalogue import Image, UnansweredError, parse
from tornado import web
from traitlets import Any as AnyTrait
from traitlets import default
from traitlets.config import Configurable

if TYPE_CHECKING:

    class _Spawner(Configurable):
        """What the mixin needs of the spawner behind it; JupyterHub has no types."""

        user_options: dict[str, Any]
        profile_list: list[Any]
        image: str
        port: int
        args: list[str]
        default_url: str
        server: Any

        log: logging.Logger

        async def start(self) -> Any: ...
        async def poll(self) -> Any: ...
        def get_env(self) -> dict[str, str]: ...
        def format_string(self, text: str) -> str: ...
else:
    _Spawner = Configurable

REFUSED = "This image is not in Argosy's catalogue, so the Hub does not start it."
"""What everybody reads whose image is refused; web tells it from other refusals by these words."""

BINDER_OPTIONS = (
    "binder_launch_host",
    "binder_ref_url",
    "binder_request",
    "binder_persistent_request",
    "binder_client_ip",
)
"""Options that become variables of the visitor's server under their own names in capitals."""

_MAX_OPTION = 4096
"""Characters of an option that reaches the server's environment: a spec has 2048, and may be written out twice."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{22,128}")
"""At least 128 bits in URL-safe base 64: nothing that a server could read as another option, or as no token at all."""

_TURN_SECONDS = 0.05
_POLL_SECONDS = 1
"""A server is asked often, the container engine only now and then whether it lives: the former costs nothing. No
question lasts longer either, as it would where the address of a server that has ended is nobody's any more."""

_FIND_SERVER = """\
for each in jupyter-lab jupyter-notebook; do
  if command -v "$each" > /dev/null; then exec "$each" "$@"; fi
done
echo "This image has neither jupyter-lab nor jupyter-notebook on its PATH." >&2
exit 127
"""
# A shell and no Python: the latter's start, and the import of jupyterlab that BinderHub does here, cost a second.
SERVER_COMMAND = ["sh", "-c", _FIND_SERVER, "argosy"]
"""What runs in the image, behind its own ENTRYPOINT; the server's arguments follow."""


class RefusedError(web.HTTPError):
    """A server that is not started; the message reaches the person who asked."""

    def __init__(self, status_code: int, message: str) -> None:
        # `%` would be taken for a format.
        super().__init__(status_code, message.replace("%", "%%"))
        self.jupyterhub_message = message


class VisitorSpawnerMixin(_Spawner):
    """Starts a server for a visitor who has a token and no account.

    Everything that a caller may decide stands in `user_options`: ``image`` (``name:tag@sha256:…``), ``token``,
    ``repo_url`` and the ``binder_…`` ones. Whatever else is there is dropped before the spawner behind this mixin could
    look at it (KubeSpawner's profiles, DockerSpawner's own choice of images).
    """

    catalogue = AnyTrait(help="The images that may start: a `Catalogue`.").tag(config=True)

    @default("apply_user_options")
    def _applied_in_start(self) -> Callable[[Any, dict[str, Any]], None]:
        # Without one the Hub warns of options that nobody handles.
        return lambda spawner, options: None  # noqa: ARG005  # the Hub's signature

    async def start(self) -> Any:
        """Start the server.

        Returns:
            Where it listens, as the spawner behind this mixin says it.

        Raises:
            RefusedError: 403, the image is not in the catalogue by this digest; 400, there is no token; 503, the
                catalogue does not answer.
        """
        options = dict(self.user_options)
        # (1) The image: by its whole name, tag and digest, and nothing that leaves one of them out.
        image = parse(options.get("image"))
        if image is None or self.catalogue is None:
            raise RefusedError(403, f"{REFUSED} Name it as name:tag@sha256:…")
        # (2) What the catalogue holds for the tag must be this very digest: neither an older image under a tag that
        # was published again, nor a newer one that was never published.
        if not await self._is_held(image):
            raise RefusedError(403, f"{REFUSED} ({image.tagged}@{image.digest})")
        # (3) The token, or the server would open to everybody.
        if not isinstance(token := options.get("token"), str) or not _TOKEN.fullmatch(token):
            raise RefusedError(400, "A server needs a token of at least 22 letters, digits, - and _.")
        # (4) From here on nothing of the caller's reaches the spawner but what was checked.
        self.user_options = {"token": token} | _texts(options)
        if self.has_trait("profile_list"):
            # KubeSpawner lets a profile, also its default one, choose the image.
            self.profile_list = []
        self.image = image.by_digest
        try:
            address = await super().start()
            await self._listens(address)
        except web.HTTPError:
            raise
        except Exception as error:  # whatever the container engine's client raises
            self.log.exception("the container of %s does not start", image.tagged)
            # It would reach the visitor word by word, with paths and addresses of this machine.
            raise RefusedError(500, "The server's container did not start.") from error
        return address

    async def _is_held(self, image: Image) -> bool:
        try:
            return bool(await self.catalogue.holds(image))
        except UnansweredError as error:
            self.log.warning("the catalogue does not answer: %s", error)
            # Not a word of the catalogue: web would take the image for a refused one.
            raise RefusedError(
                503, "Whether this image may start is not known at the moment. Try again soon."
            ) from error

    async def _listens(self, address: str | tuple[str, int]) -> None:
        """Wait until the server takes connections; the Hub's `start_timeout` ends this.

        The Hub itself would wait for `http_timeout` also for a server that has ended long ago, and it asks more and
        more seldom.

        Raises:
            RefusedError: 500, the server ended.
        """
        url = urlsplit(address if isinstance(address, str) else f"http://{address[0]}:{address[1]}")
        poll_at = time.monotonic() + _POLL_SECONDS
        while not await _is_open(url.hostname, url.port):
            if time.monotonic() >= poll_at:
                if await self.poll() is not None:
                    message = "The server ended before it was ready. The image may hold no Jupyter that works."
                    raise RefusedError(500, message)
                poll_at = time.monotonic() + _POLL_SECONDS
            await asyncio.sleep(_TURN_SECONDS)

    def get_args(self) -> list[str]:
        """The server's arguments: where it listens, its address behind the proxy, its token.

        Each stands there twice: for jupyter-server, and for the notebook servers of old images. Each of the two
        ignores the other's.
        """
        base_url = self.server.base_url if self.server else "/"
        shared = {"base_url": base_url, "token": self.user_options["token"], "trust_xheaders": "True"}
        if self.default_url:
            shared["default_url"] = self.format_string(self.default_url)
        both = [f"--{app}.{name}={value}" for app in ("ServerApp", "NotebookApp") for name, value in shared.items()]
        return ["--ip=0.0.0.0", f"--port={self.port}", *both, *self.args]

    def get_env(self) -> dict[str, str]:
        """The server's environment, with BinderHub's variables."""
        environment = super().get_env()
        for name, value in _texts(self.user_options).items():
            environment["BINDER_REPO_URL" if name == "repo_url" else name.upper()] = value
        return environment


async def _is_open(host: str | None, port: int | None) -> bool:
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, port), _POLL_SECONDS)
    except OSError:  # a TimeoutError is one of them
        return False
    writer.close()
    return True


def _texts(options: dict[str, Any]) -> dict[str, str]:
    """Those of the known options that are texts."""
    known = {name: options.get(name) for name in ("repo_url", *BINDER_OPTIONS)}
    return {
        name: value
        for name, value in known.items()
        if isinstance(value, str) and len(value) <= _MAX_OPTION and value.isprintable()
    }
