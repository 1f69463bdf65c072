"""The ledger's tables. Rows never leave this room: callers read `web.ledger.records`.

Times are seconds since the epoch, as everywhere in Argosy; 0 stands for "not yet". No row holds a token, a user name
or an address of a client: `network` is the client's network, as ``192.0.2.0/24``.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, Double, ForeignKey, Index, MetaData, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

_NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_name)s",
    "fk": "fk_%(table_name)s_%(column_0_name)s",
    "pk": "pk_%(table_name)s",
}
"""Constraints need names, or a later migration cannot drop them."""

_BUILD_NAME = String(63)
_WORD = String(32)


class Model(DeclarativeBase):
    """The root of the tables."""

    metadata = MetaData(naming_convention=_NAMES)


class Build(Model):
    """One attempt of one build."""

    __tablename__ = "builds"
    __table_args__ = (Index("ix_builds_repo_url_state_ended", "repo_url", "state", "ended"),)

    name: Mapped[str] = mapped_column(_BUILD_NAME, primary_key=True)
    first: Mapped[str] = mapped_column(_BUILD_NAME, index=True)
    attempt: Mapped[int]
    provider: Mapped[str] = mapped_column(_WORD)
    spec: Mapped[str] = mapped_column(Text)
    ref: Mapped[str] = mapped_column(Text)
    commit: Mapped[str] = mapped_column(Text)
    repo_url: Mapped[str] = mapped_column(Text)
    image: Mapped[str] = mapped_column(Text, index=True)
    digest: Mapped[str] = mapped_column(Text)
    owner: Mapped[str] = mapped_column(Text)
    lane: Mapped[str] = mapped_column(_WORD)
    network: Mapped[str] = mapped_column(String(64))
    request: Mapped[str] = mapped_column(Text)
    state: Mapped[str] = mapped_column(_WORD)
    reason: Mapped[str] = mapped_column(_WORD)
    message: Mapped[str] = mapped_column(Text)
    created: Mapped[float] = mapped_column(Double, index=True)
    started: Mapped[float] = mapped_column(Double)
    published: Mapped[float] = mapped_column(Double)
    ended: Mapped[float] = mapped_column(Double)
    recorded: Mapped[float] = mapped_column(Double)
    steps: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    verdict: Mapped[str] = mapped_column(_WORD)
    counts: Mapped[dict[str, int]] = mapped_column(JSON)


class Finding(Model):
    """One known vulnerability of one package in one build's image."""

    __tablename__ = "findings"

    id: Mapped[int] = mapped_column(primary_key=True)
    build: Mapped[str] = mapped_column(ForeignKey("builds.name", ondelete="CASCADE"), index=True)
    vulnerability: Mapped[str] = mapped_column(String(128))
    severity: Mapped[str] = mapped_column(_WORD)
    package: Mapped[str] = mapped_column(Text)
    version: Mapped[str] = mapped_column(Text)
    fixed: Mapped[str] = mapped_column(Text)
    url: Mapped[str] = mapped_column(Text)


class Launch(Model):
    """One visitor's server, or the attempt at it. Whose it was is not written down."""

    __tablename__ = "launches"

    id: Mapped[int] = mapped_column(primary_key=True)
    image: Mapped[str] = mapped_column(Text, index=True)
    build: Mapped[str] = mapped_column(_BUILD_NAME)
    provider: Mapped[str] = mapped_column(_WORD)
    spec: Mapped[str] = mapped_column(Text)
    repo_url: Mapped[str] = mapped_column(Text, index=True)
    outcome: Mapped[str] = mapped_column(_WORD)
    reason: Mapped[str] = mapped_column(_WORD)
    attempts: Mapped[int]
    created: Mapped[float] = mapped_column(Double, index=True)
    ready_seconds: Mapped[float] = mapped_column(Double)
