"""Captions for VPLM: a chat model describes videos and objects, people correct it (paper, section 3.3 and appendix A.1)."""
