"""Decentralised methods: each worker has its own model and exchanges it with its neighbours on a graph."""
