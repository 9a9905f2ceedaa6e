"""The coordinator: accounts, the ledger, the queue and the schedule."""
