"""The training package: data, losses, optimizer, loop, previews."""
