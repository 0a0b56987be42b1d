"""The simulated outside world: agencies that ask, partners and a programme office that answer, on a stack that runs."""
