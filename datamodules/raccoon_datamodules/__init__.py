"""What the data is: video, masks, paragraph, layout, the VPLM sample, its shards and their order."""
