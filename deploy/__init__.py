"""What runs Fieldbridge: containers, and the same servers without containers."""
