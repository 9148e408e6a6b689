"""Device shadows."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """One row per shadow; the classic shadow of a thing has an empty name."""
    op.create_table(
        "shadows",
        sa.Column("thing", sa.String, primary_key=True),
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("document", sa.LargeBinary, nullable=False),
        # Seconds since 1970: its version is remembered for a while after it was deleted.
        sa.Column("deleted_at", sa.BigInteger),
    )
    op.create_index("shadows_deleted_at", "shadows", ["deleted_at"])
