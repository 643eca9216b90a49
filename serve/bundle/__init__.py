"""Weights in one file, for the way across an air gap: export, verify, import, signatures."""
