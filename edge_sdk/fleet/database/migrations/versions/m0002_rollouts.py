"""Devices, rollouts, the audit, and what is on its way to webhooks."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

# Counts up by itself in SQLite only as its own kind of integer.
_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Times are seconds since 1970; documents, views and labels are JSON."""
    op.create_table(
        "devices",
        sa.Column("thing", sa.String, primary_key=True),
        sa.Column("online", sa.Boolean, nullable=False),
        sa.Column("last_seen", sa.Double),
        sa.Column("labels", sa.Text, nullable=False),
    )
    op.create_table(
        "rollouts",
        sa.Column("id", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("ended", sa.Boolean, nullable=False, index=True),
        sa.Column("document", sa.Text, nullable=False),
        # Without its devices, of which there may be many thousands.
        sa.Column("view", sa.Text, nullable=False),
    )
    op.create_table(
        "rollout_members",
        sa.Column("rollout", _NUMBER, sa.ForeignKey("rollouts.id"), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("thing", sa.String, nullable=False, index=True),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.create_table(
        "audit",
        sa.Column("id", _NUMBER, primary_key=True, autoincrement=True),
        sa.Column("at", sa.Double, nullable=False),
        sa.Column("rollout", _NUMBER, index=True),
        sa.Column("thing", sa.String, index=True),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("url", sa.String, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due_at", sa.Double, nullable=False, index=True),
    )
