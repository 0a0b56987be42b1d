"""What matching decides: frozen values and pure functions."""
