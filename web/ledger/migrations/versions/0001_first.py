"""Builds, findings and launches."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Makes the first tables."""
    _builds()
    _findings()
    _launches()


def _builds() -> None:
    op.create_table(
        "builds",
        sa.Column("name", sa.String(63), nullable=False),
        sa.Column("first", sa.String(63), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("provider", sa.String(32), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("spec", "ref", "commit", "repo_url", "image")),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("lane", sa.String(32), nullable=False),
        sa.Column("network", sa.String(64), nullable=False),
        sa.Column("request", sa.Text(), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("reason", sa.String(32), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        *(
            sa.Column(name, sa.Double(), nullable=False)
            for name in ("created", "started", "published", "ended", "recorded")
        ),
        sa.Column("steps", sa.JSON(), nullable=False),
        sa.Column("verdict", sa.String(32), nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_builds"),
    )
    for column in ("first", "image", "created"):
        op.create_index(f"ix_builds_{column}", "builds", [column])
    op.create_index("ix_builds_repo_url_state_ended", "builds", ["repo_url", "state", "ended"])


def _findings() -> None:
    op.create_table(
        "findings",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("build", sa.String(63), nullable=False),
        sa.Column("vulnerability", sa.String(128), nullable=False),
        sa.Column("severity", sa.String(32), nullable=False),
        *(sa.Column(name, sa.Text(), nullable=False) for name in ("package", "version", "fixed", "url")),
        sa.ForeignKeyConstraint(["build"], ["builds.name"], name="fk_findings_build", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_findings"),
    )
    op.create_index("ix_findings_build", "findings", ["build"])


def _launches() -> None:
    op.create_table(
        "launches",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("image", sa.Text(), nullable=False),
        sa.Column("build", sa.String(63), nullable=False),
        sa.Column("provider", sa.String(32), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column("repo_url", sa.Text(), nullable=False),
        sa.Column("outcome", sa.String(32), nullable=False),
        sa.Column("reason", sa.String(32), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created", sa.Double(), nullable=False),
        sa.Column("ready_seconds", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_launches"),
    )
    for column in ("image", "repo_url", "created"):
        op.create_index(f"ix_launches_{column}", "launches", [column])
