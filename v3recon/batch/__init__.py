"""Folders of many photos to tables: shards that are written once, whatever is stopped or killed."""
