"""The store, read-only, in the Hub's own protocol, so that other machines pull from this one."""
