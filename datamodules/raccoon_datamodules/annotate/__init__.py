"""Captions for VPLM: a chat model describes videos, people correct it (paper, section 3.3 and appendix A.1)."""
