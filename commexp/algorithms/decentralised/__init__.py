"""Methods in which each worker has a model of its own and exchanges it with neighbours."""
