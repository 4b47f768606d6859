"""Photos to faces, and what a face is made into: parts, textures, files, sheets."""
