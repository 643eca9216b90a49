"""The ledger's tables. Times are unix seconds, money is nanos (see `serve.quota`)."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
)

METADATA = MetaData()
REVISION = "0001"  # the newest of `migrations/versions`, which makes exactly these tables
# SQLite counts up by itself only where the key is its own rowid, an INTEGER.
_NUMBER = BigInteger().with_variant(Integer(), "sqlite")

keys = Table(
    "keys",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("digest", String(64), nullable=False, unique=True),
    Column("tenant", String(200), nullable=False),
    Column("name", String(200), nullable=False, default=""),
    Column("terms", JSON, nullable=False),  # what else `quota.Key` has
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),
    Column("revoked_at", Float),
    Column("replaced_by", String(64)),  # the key that a rotation has put into its place
)

usage = Table(
    "usage",
    METADATA,
    Column("id", String(128), primary_key=True),  # the request's
    Column("at", Float, nullable=False),
    Column("key", String(64), nullable=False),
    Column("tenant", String(200), nullable=False),
    Column("model", String(200), nullable=False),
    Column("route", String(64), nullable=False),
    Column("replica", String(200), nullable=False, default=""),
    Column("status", Integer, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("is_estimated", Boolean, nullable=False),
    Column("queue_s", Float, nullable=False),
    Column("ttft_s", Float),
    Column("duration_s", Float, nullable=False),
    Column("cost_nanos", BigInteger, nullable=False),
    Column("energy_j", Float),
    Index("usage_at", "at"),
    Index("usage_tenant_at", "tenant", "at"),
    Index("usage_key_at", "key", "at"),
)

# Starts whose End has not come yet.
open_requests = Table(
    "open_requests",
    METADATA,
    Column("id", String(128), primary_key=True),
    Column("segment", String(200), nullable=False),
    Column("record", JSON, nullable=False),
)

# How far each file of the journal has been read: written in the transaction that has the rows.
segments = Table(
    "segments",
    METADATA,
    Column("name", String(200), primary_key=True),
    Column("offset", BigInteger, nullable=False),
)

audit = Table(
    "audit",
    METADATA,
    Column("seq", _NUMBER, primary_key=True, autoincrement=False),
    Column("at", Float, nullable=False),
    Column("actor", String(200), nullable=False),  # "key:ID", "cli:UID", "system"
    Column("address", String(64), nullable=False),
    Column("action", String(64), nullable=False),
    Column("object", String(300), nullable=False),
    Column("result", String(64), nullable=False),
    Column("request", String(128), nullable=False),
    Column("facts", JSON, nullable=False),
    Column("mac", String(64), nullable=False),  # over all of the above and the one before
)
