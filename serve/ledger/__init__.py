"""Keys, usage and the audit log, in SQLite or PostgreSQL."""

__all__: list[str] = []
