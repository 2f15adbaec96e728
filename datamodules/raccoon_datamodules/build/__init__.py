"""Builders of VPLM: from ROVI's folders, mask folders, plain videos and the released JSON to shards.

`run.build` is the way in; `sources` says what a source video is, `folders` finds them, `released` reads the JSON lists,
`clips` makes samples, `staging` and `assemble` keep what is done and write the shards.
"""
