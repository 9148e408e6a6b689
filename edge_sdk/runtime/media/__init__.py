"""Pictures and sound to model inputs, as a variant's steps say: numpy only, pure but for files."""
