"""What is counted, told and shown."""
