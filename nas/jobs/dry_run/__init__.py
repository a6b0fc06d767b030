"""What a command will need, by doing some of its steps."""
