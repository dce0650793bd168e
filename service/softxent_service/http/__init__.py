"""Everything that knows HTTP; nothing here knows how a kernel is compiled."""
