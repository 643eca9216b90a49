"""Keys, usage, the journal's bookmarks, the audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Make all tables."""
    _make_keys()
    _make_usage()
    _make_bookmarks()
    _make_audit()


def _make_keys() -> None:
    op.create_table(
        "keys",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False, unique=True),
        sa.Column("tenant", sa.String(200), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("terms", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Float, nullable=False),
        sa.Column("expires_at", sa.Float),
        sa.Column("revoked_at", sa.Float),
        sa.Column("replaced_by", sa.String(64)),
    )


def _make_usage() -> None:
    op.create_table(
        "usage",
        sa.Column("id", sa.String(128), primary_key=True),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("key", sa.String(64), nullable=False),
        sa.Column("tenant", sa.String(200), nullable=False),
        sa.Column("model", sa.String(200), nullable=False),
        sa.Column("route", sa.String(64), nullable=False),
        sa.Column("replica", sa.String(200), nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("input_tokens", sa.BigInteger, nullable=False),
        sa.Column("cached_tokens", sa.BigInteger, nullable=False),
        sa.Column("output_tokens", sa.BigInteger, nullable=False),
        sa.Column("reasoning_tokens", sa.BigInteger, nullable=False),
        sa.Column("is_estimated", sa.Boolean, nullable=False),
        sa.Column("queue_s", sa.Float, nullable=False),
        sa.Column("ttft_s", sa.Float),
        sa.Column("duration_s", sa.Float, nullable=False),
        sa.Column("cost_nanos", sa.BigInteger, nullable=False),
        sa.Column("energy_j", sa.Float),
    )
    op.create_index("usage_at", "usage", ["at"])
    op.create_index("usage_tenant_at", "usage", ["tenant", "at"])
    op.create_index("usage_key_at", "usage", ["key", "at"])


def _make_bookmarks() -> None:
    op.create_table(
        "open_requests",
        sa.Column("id", sa.String(128), primary_key=True),
        sa.Column("segment", sa.String(200), nullable=False),
        sa.Column("record", sa.JSON, nullable=False),
    )
    op.create_table(
        "segments",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("offset", sa.BigInteger, nullable=False),
    )


def _make_audit() -> None:
    op.create_table(
        "audit",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            primary_key=True,
            autoincrement=False,
        ),
        sa.Column("at", sa.Float, nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("object", sa.String(300), nullable=False),
        sa.Column("result", sa.String(64), nullable=False),
        sa.Column("request", sa.String(128), nullable=False),
        sa.Column("facts", sa.JSON, nullable=False),
        sa.Column("mac", sa.String(64), nullable=False),
    )
