"""The ledger of budgets that processes share, as a machine of values: what each call changes, and what it answers."""
