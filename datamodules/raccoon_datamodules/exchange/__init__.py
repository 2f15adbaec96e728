"""Shards to and from the messages-and-objects JSONL that other trainers read."""
