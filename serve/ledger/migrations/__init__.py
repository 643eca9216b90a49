"""The history of the ledger's schema. A migration that was shipped is never changed again."""

__all__: list[str] = []
