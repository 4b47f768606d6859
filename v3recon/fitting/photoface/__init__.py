"""How PhotoFace is learned from photographs (see docs/photoface.md)."""
