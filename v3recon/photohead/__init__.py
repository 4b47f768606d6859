"""The builder of PhotoHead, the open head model (docs/photohead.md)."""
