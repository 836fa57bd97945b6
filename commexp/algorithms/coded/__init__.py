"""Coded methods: workers hold redundant data, and rounds do not wait for stragglers."""
