"""What intake decides: frozen values and pure functions. Time and ids are arguments; a refusal is a value."""
