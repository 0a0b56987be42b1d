"""The same useful work as other tools do it, one file each. They run in an environment of their own."""
