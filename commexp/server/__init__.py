"""Runs whose server waits for nobody: its channels to worker processes, who is late, and where the workers are."""
