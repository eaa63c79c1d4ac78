"""What is wrong with a program, found before training."""
