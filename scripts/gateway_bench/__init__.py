"""What `scripts/bench-gateway` is made of: clients and an upstream in C, and their hosts."""
