"""What happens to a frame after the paste."""
