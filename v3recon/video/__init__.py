"""Faces in video: frames in, people followed, their coefficients filtered, files out."""
