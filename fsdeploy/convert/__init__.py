"""Frame in, frame out: read, crop, swap, colour, mask, paste, write. This package never imports torch."""
