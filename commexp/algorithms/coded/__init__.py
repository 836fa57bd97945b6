"""Methods on redundant data, whose rounds do not wait for stragglers."""
