"""Models that somebody else serves or made, behind the plug points of `raccoon.interfaces`.

Their libraries are imported when they are first used.
"""

from raccoon.backbones.openai_chat import OpenAIChat

__all__ = ["OpenAIChat"]
