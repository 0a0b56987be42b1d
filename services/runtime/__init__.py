"""How events move: once, in order, whatever fails. Knows envelopes and topics; knows no event and no service."""
