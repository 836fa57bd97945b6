"""Methods with several local steps between two exchanges."""
