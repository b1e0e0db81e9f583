"""Ready-made plugins, installed as ``rigger_mp.plugins``."""
