"""The whole of it, as it is run: supervisor, gateways, ledger, journal, limits; fake engines."""
