"""What a program says at values of its latents: log p, log q, predictions and draws of data."""
