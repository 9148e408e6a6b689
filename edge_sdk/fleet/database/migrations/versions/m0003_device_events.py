"""How far what devices tell has been written down."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """One row per device and epoch; the events themselves are in the audit."""
    op.create_table(
        "device_events",
        sa.Column("thing", sa.String, primary_key=True),
        sa.Column("epoch", sa.String, primary_key=True),
        sa.Column("seq", sa.BigInteger, nullable=False),
    )
