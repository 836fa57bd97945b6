"""Runs whose server does not wait: its channels to worker processes, which of them is late, and where workers live."""
