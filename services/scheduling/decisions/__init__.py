"""What scheduling decides: frozen values and pure functions."""
