"""What all converters share: checking pictures and boxes, splitting, writing shards, reporting."""
