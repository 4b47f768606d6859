"""Work in texture space."""
