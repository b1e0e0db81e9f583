"""The ``rigger-mp`` command."""
