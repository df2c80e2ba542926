"""How converted frames are written."""
