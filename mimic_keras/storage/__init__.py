"""What is kept on disk: addressed by content, whole or absent."""
