"""Methods in which no worker waits for another, and their synchronous baseline."""
