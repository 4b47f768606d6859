"""Heads in the browser: a page with three.js, served on this machine only."""
