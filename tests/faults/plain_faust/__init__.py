"""A plain Faust sink under kills, pauses and restarts, to hold our numbers against."""
