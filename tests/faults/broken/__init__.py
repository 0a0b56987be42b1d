"""Promises broken on purpose in a copy of the tree, to see that the campaign finds it."""
