"""The ledger that processes share: where it is kept, and how a process speaks with it."""
